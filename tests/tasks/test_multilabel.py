"""Several classes an image: losses in plain loops, metrics at their edges, every method's part."""

from collections.abc import Iterator
from math import exp, inf, log
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.test_every_method import TEACHER, close, images, network, pair
from tests.vectors.build import Outputs, batch, load
from understudy import methods, tasks
from understudy.batch import Batch
from understudy.config.recipe import Data, Recipe, Training
from understudy.distillation.wire import check_methods, distiller, wire
from understudy.errors import RecipeError, ShapeError
from understudy.experiment.fidelity import evaluation
from understudy.features import Shapes
from understudy.methods.kd import KD
from understudy.methods.lshfm import LSHFM
from understudy.methods.nd import ND
from understudy.tasks import Task
from understudy.tasks.multilabel import MultiLabel

FLAT = shapes("net", penultimate=4, logits=3).independent()
LABELS = torch.tensor([[1, 0, 1], [0, -1, 0], [-1, 1, 0], [0, 0, 1], [-1, -1, -1]])


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def known(labels: Tensor) -> Iterator[tuple[int, int, bool]]:
    """Place and value of every label that is known."""
    for i, row in enumerate(labels.tolist()):
        for k, y in enumerate(row):
            if y >= 0:
                yield i, k, bool(y)


def task(**keys: Any) -> Task:
    return tasks.find("multilabel", Training(**keys))


def loss(logits: Tensor, labels: Tensor, **keys: Any) -> Tensor:
    found = task(**keys).loss({"logits": logits}, batch(len(labels), labels))
    assert found is not None
    return found


# ---- the loss on labels -----------------------------------------------------------------------


def test_cross_entropy_is_the_mean_over_known_labels() -> None:
    logits = torch.randn(5, 3)
    each = [-log(sigmoid(float(logits[i, k]) * (1 if y else -1))) for i, k, y in known(LABELS)]
    assert float(loss(logits, LABELS)) == pytest.approx(sum(each) / len(each))


@pytest.mark.parametrize("asymmetry", [(0.0, 4.0, 0.05), (1.0, 2.5, 0.0), (2.0, 0.0, 0.2)])
def test_the_asymmetric_loss_equals_the_formula(asymmetry: tuple[float, float, float]) -> None:
    logits, total = 3 * torch.randn(5, 3), []
    plus, minus, clip = asymmetry
    for i, k, y in known(LABELS):
        p = sigmoid(float(logits[i, k]))
        q = max(p - clip, 0)
        total.append(-((1 - p) ** plus) * log(p) if y else -(q**minus) * log(1 - q))
    found = loss(logits, LABELS, multilabel_loss="asymmetric", asymmetry=asymmetry)
    assert float(found) == pytest.approx(sum(total) / len(total), rel=1e-4)


def test_without_focus_and_clip_it_is_cross_entropy() -> None:
    logits = torch.randn(5, 3)
    same = loss(logits, LABELS, multilabel_loss="asymmetric", asymmetry=(0.0, 0.0, 0.0))
    close(same, loss(logits, LABELS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("asymmetry", [(0.0, 4.0, 0.05), (0.5, 0.5, 0.0), (1.0, 2.0, 0.0)])
@pytest.mark.parametrize("kind", ["bce", "asymmetric"])
def test_losses_are_finite_whatever_the_logits(
    kind: str, asymmetry: tuple[float, ...], dtype: torch.dtype
) -> None:
    values = torch.tensor([0.0, 1e-4, 30, 88, 200, 6e4])
    logits = torch.cat([values, -values]).to(dtype).unsqueeze(1).expand(-1, 2).contiguous()
    logits.requires_grad_()
    labels = torch.tensor([[0, 1]]).expand(12, -1)
    found = loss(logits, labels, multilabel_loss=kind, asymmetry=asymmetry)
    found.backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_nothing_known_is_no_loss() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    found = loss(logits, torch.full((2, 3), -1))
    found.backward()
    assert found == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("asymmetry", [(0.0, -1.0, 0.0), (0.0, 1.0, 1.0), (0.0, 1.0), ()])
def test_refuses_an_asymmetry_without_meaning(asymmetry: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match=r"'training\.asymmetry' is \["):
        MultiLabel(loss="asymmetric", asymmetry=asymmetry)


# ---- the metrics ------------------------------------------------------------------------------


def evaluate(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Any:
    def outputs(z: Tensor) -> dict[str, Tensor]:
        return {"logits": z, "penultimate": z, "labels": labels, "index": torch.arange(len(z))}

    teachers = {} if teacher is None else {"": outputs(teacher)}
    return evaluation(task(), outputs(logits), teachers)


def test_a_class_without_a_positive_counts_in_no_mean() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [1, 0]])
    found = evaluate(torch.tensor([[2.0, 3.0], [1.0, -3.0], [-1.0, -3.0]]), labels)
    # Ranks of the positives: 1 and 3, with precisions 1 and 2/3.
    assert found.per_class == [pytest.approx(100 * (1 + 2 / 3) / 2), None]
    assert found.metrics["mAP"] == pytest.approx(found.per_class[0])
    assert found.metrics["mAP_coco"] == pytest.approx(found.per_class[0])
    assert (found.metrics["CP"], found.metrics["CR"]) == (50, 50)
    assert found.metrics["OP"] == pytest.approx(100 / 3)
    assert found.metrics["OR"] == 50
    assert all(abs(x) < inf for x in found.metrics.values())


def test_an_unknown_label_counts_nowhere() -> None:
    labels = torch.tensor([[1], [0], [-1], [1]])
    logits = torch.tensor([[2.0], [1.0], [9.0], [-1.0]])
    known = labels[:, 0] >= 0
    whole, part = evaluate(logits, labels), evaluate(logits[known], labels[known])
    assert whole.metrics == part.metrics
    assert whole.per_class == part.per_class


def test_images_without_any_label_have_no_metrics() -> None:
    found = evaluate(torch.randn(40, 2), torch.full((40, 2), -1), torch.randn(40, 2))
    assert (found.metrics, found.per_class) == ({}, [])
    assert found.fidelity["cka"] is not None


def test_fidelity_is_told_label_by_label() -> None:
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    alike, divergence = [], []
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p, q = sigmoid(s), sigmoid(t)
        alike.append((s >= 0) == (t >= 0))
        divergence.append(q * log(q / p) + (1 - q) * log((1 - q) / (1 - p)))
    found = evaluate(student, LABELS[torch.arange(6) % 5], teacher).fidelity
    assert found["agreement"] == pytest.approx(sum(alike) / 18)
    assert found["kl"] == pytest.approx(sum(divergence) / 18, rel=1e-5)


# ---- methods ----------------------------------------------------------------------------------


def test_kd_takes_each_class_by_itself() -> None:
    student, teacher = random(5, logits=3), random(5, logits=3)
    total = 0.0
    for s, t in zip(student["logits"].flatten(), teacher["logits"].flatten(), strict=True):
        p, q = sigmoid(float(s) / 2), sigmoid(float(t) / 2)
        total += q * log(q / p) + (1 - q) * log((1 - q) / (1 - p))
    found = KD(FLAT, FLAT, temperature=2)(student, teacher, batch(5))
    assert float(found) == pytest.approx(4 * total / 15)
    both = {"logits": student["logits"] + 3}
    assert KD(FLAT, FLAT)(both, student, batch(5)) > 0.1, "a softmax would not see the shift"


def test_kd_compares_no_classes_of_an_image() -> None:
    with pytest.raises(RecipeError, match="'standardise' of kd"):
        KD(FLAT, FLAT, standardise=True)


def test_nd_follows_the_mean_of_each_class_that_is_present() -> None:
    method = ND(FLAT, FLAT).double()
    means = torch.randn(3, 4).double()
    load(method, class_means=means)
    student, teacher = random(5, penultimate=4), random(5, penultimate=4, logits=3)
    total = []
    for s, t, row in zip(
        student["penultimate"], teacher["penultimate"], LABELS.tolist(), strict=True
    ):
        longest = max(float(s.norm()), float(t.norm()))
        each = [
            1 - float(s @ c / c.norm()) / longest for c, y in zip(means, row, strict=True) if y == 1
        ]
        total += [sum(each) / len(each)] if each else []
    assert len(total) == 3
    found = method(student, teacher, batch(5, LABELS))
    assert float(found) == pytest.approx(sum(total) / 3)


def test_class_means_are_over_the_images_in_which_a_class_is_present() -> None:
    features = {"penultimate": torch.randn(40, 4), "logits": torch.randn(40, 3)}
    labels = torch.randint(-1, 2, (40, 3))
    labels[:, 2].clamp_(max=0)
    method = ND(FLAT, FLAT)
    method.prepare(Outputs(features, labels))
    for k in range(2):
        expected = features["penultimate"][labels[:, k] == 1].mean(0)
        torch.testing.assert_close(method.class_means[k], expected)
    assert not method.class_means[2].any()


def test_nd_knows_the_classes_of_places_where_logits_are_others() -> None:
    dense = Shapes(
        "dense", {"penultimate": (4,), "logits": (18,)}, exclusive_classes=False, classes=3
    )
    method = ND(dense, dense).double()
    assert method.class_means.shape == (3, 4)
    load(method, class_means=torch.randn(3, 4).double())
    student, teacher = random(6, penultimate=4), random(6, penultimate=4)
    rows = batch(6, torch.tensor([0, 0, 1, 2, 0, 2]))
    assert method(student, teacher, rows).isfinite()


def test_the_selective_form_of_lshfm_is_refused() -> None:
    with pytest.raises(ShapeError, match="set selective to false"):
        LSHFM(FLAT, FLAT)


PARTS = {
    **dict.fromkeys(("crd", "deit", "dino", "dist", "dkd", "letkd"), "refused"),
    **dict.fromkeys(("kd", "nd"), "of its own"),
    **dict.fromkeys(("ab", "at", "cc", "fitnet", "frs", "fsp", "ft"), "features"),
    **dict.fromkeys(("kdsvd", "lshfm", "nst", "ofd", "pefd", "pkt", "reviewkd"), "features"),
    **dict.fromkeys(("cwd", "dense_mse", "gram", "mgd", "pkd", "proteus"), "features"),
    **dict.fromkeys(("queue_kl", "radio", "theia", "unic"), "features"),
    **dict.fromkeys(("rkd", "semckd", "simkd", "sp", "vid"), "features"),
    "srrl": "features and logits as numbers",
}
"""What becomes of every method where an image has several classes."""


def test_every_method_is_decided() -> None:
    assert sorted(PARTS) == methods.names()


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part == "refused"])
def test_what_needs_one_class_is_refused_in_words(name: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' has no meaning .* Use kd"):
        check_methods(Recipe(task="multilabel", methods={name: {}}))
    student, teacher = network(TEACHER), network(TEACHER)
    with pytest.raises(RecipeError, match="do not exclude each other"):
        wire(student, teacher, {name: 1}, example=images(2).images, task="multilabel")
    check_methods(Recipe(methods={name: {}}))


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part != "refused"])
def test_what_is_not_refused_teaches_several_classes(name: str) -> None:
    torch.manual_seed(0)
    student, teacher = network(TEACHER), network(TEACHER)
    shown = images(40).images
    labels = torch.randint(-1, 2, (40, 5))
    made = wire(student, teacher, {name: {}}, example=shown, task="multilabel")
    made.prepare([(shown[:20], labels[:20]), (shown[20:], labels[20:])])
    losses = made(Batch.of(shown, labels))
    made.total(losses).backward()
    assert set(losses) == {"task", name}
    assert all(x.isfinite() for x in losses.values())
    reached = [x.grad for x in made.student.parameters() if x.grad is not None]
    assert any(grad.any() for grad in reached)
    assert all(grad.isfinite().all() for grad in reached)


def test_a_task_has_hyper_parameters_of_its_own() -> None:
    student, teacher = network(TEACHER), network(TEACHER)
    shown = images(2).images
    made = wire(student, teacher, {"lshfm": {}, "nd": {}}, example=shown, task="multilabel")
    lshfm = made.trainable.methods["lshfm"]
    assert isinstance(lshfm, LSHFM)
    assert (len(lshfm.hash_weight), lshfm.selective) == (4 * TEACHER[-1], False)
    assert {name: weight.value for name, weight in made.weights.items()} == {
        "task": 1,
        "lshfm": 0.5,
        "nd": 0.2,
    }
    asked = {"lshfm": {"weight": 3, "hashes": 7}}
    made = wire(student, teacher, asked, example=shown, task="multilabel")
    assert made.weights["lshfm"].value == 3
    assert len(made.trainable.methods["lshfm"].hash_weight) == 7  # type: ignore[arg-type]
    assert len(pair(LSHFM, TEACHER).method.hash_weight) == 32 * TEACHER[-1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(task="multilabel", data=Data(mixup=0.2)),
        Recipe(task="multilabel", data=Data(cutmix=1.0)),
        Recipe(task="multilabel", training=Training(label_smoothing=0.1)),
    ],
)
def test_what_is_for_one_class_is_refused(recipe: Recipe) -> None:

    with pytest.raises(RecipeError, match="are for one class per image"):
        distiller(recipe, network(TEACHER), {}, tasks.find(recipe.task))
