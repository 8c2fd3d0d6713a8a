"""Several teachers of one student: each with its own images, its methods and its features."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import understudy
from tests.distillation.small_networks import images, network
from understudy import tasks
from understudy.batch import Batch
from understudy.config.recipe import OneTeacher, Recipe
from understudy.distillation import wire
from understudy.distillation.distiller import Distiller
from understudy.distillation.loss_scales import loss_scales
from understudy.errors import RecipeError, ShapeError, UnderstudyError
from understudy.features import Features, of_group
from understudy.models.network import Network
from understudy.models.preprocessing import Input

METHODS: dict[str, dict[str, Any]] = {
    "dino": {"lshfm": {"weight": 2.0, "terms": "l2", "selective": False}, "rkd": {"weight": 0.5}},
    "siglip": {"kd": {"weight": 0.25}, "fitnet": {"feature": "stage1"}},
}
INPUTS = {
    "student": Input(size=None, mean=(0.5,) * 3, std=(0.25,) * 3),
    "dino": Input(size=24, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4)),
    "siglip": Input(size=40, mean=(0.0,) * 3, std=(1.0,) * 3),
}
LABELS = torch.tensor([0, 1, 2, 3])


def wrapped(name: str) -> Network:
    """Build a network in float64 with an input contract of its own."""
    module = network(seed=sorted(INPUTS).index(name)).double().train()
    size = None if INPUTS[name].size else (32, 32)
    return Network(module, input=INPUTS[name], example_size=size)


def distiller(*names: str, methods: dict[str, dict[str, Any]] = METHODS) -> Distiller:
    """Wire the student to some of the teachers, of which a single one has no name."""
    networks = {name: wrapped(name) for name in names}
    entries = {name: OneTeacher(name, methods=methods[name]) for name in names}
    recipe = Recipe(teachers=entries)
    if len(names) == 1:
        recipe, networks = Recipe(methods=methods[names[0]]), {"": networks[names[0]]}
    return wire.distiller(recipe, wrapped("student"), networks, tasks.find("classification"))


def batch() -> Batch:
    return Batch.of(images(4, 3, 32, 32).double().sigmoid(), LABELS)


def losses_of(made: Distiller) -> dict[str, Tensor]:
    losses = made.train()(batch())
    assert isinstance(losses, dict)
    return losses


def test_two_teachers_are_the_sum_of_the_losses_of_each() -> None:
    both = distiller("dino", "siglip")
    losses = losses_of(both)
    assert list(losses) == ["task", "dino/lshfm", "dino/rkd", "siglip/kd", "siglip/fitnet"]
    total = both.total(losses)
    expected = losses["task"]
    for name in ("dino", "siglip"):
        one = distiller(name)
        own = losses_of(one)
        expected = expected + one.total(own) - own["task"]
        for label in METHODS[name]:
            torch.testing.assert_close(losses[f"{name}/{label}"], own[label], rtol=0, atol=1e-12)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-12)
    assert total.dtype == torch.float64


def test_gradients_are_those_of_the_sum_and_reach_no_teacher() -> None:
    both = distiller("dino", "siglip")
    both.total(losses_of(both)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for each in both.distillations for p in each.teacher.parameters())
    grads = [p.grad for p in both.trainable.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)


def test_each_network_sees_the_images_as_its_own_input_says() -> None:
    both = distiller("dino", "siglip")
    modules = {each.name: each.teacher.network.module for each in both.distillations}
    modules["student"] = both.student.module
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[name] = arguments[0]

        return hook

    for name, module in modules.items():
        module.register_forward_pre_hook(keep(name))
    losses_of(both)
    for name, contract in INPUTS.items():
        side = contract.size or 32
        assert seen[name].shape == (4, 3, side, side)
        mean, std = (
            torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1)
            for x in (contract.mean, contract.std)
        )
        raw = seen[name] * std + mean
        low, high = raw.aminmax()  # in [0, 1], but for what interpolation adds
        assert low > -0.2
        assert high < 1.2
        torch.testing.assert_close(raw.mean(), batch().images.mean(), rtol=0, atol=0.02)


def test_a_teacher_is_replayed_by_itself_and_does_not_run_then() -> None:
    both, asked = distiller("dino", "siglip"), list[str]()
    expected = losses_of(distiller("dino", "siglip"))
    dino, siglip = both.distillations
    stored = dino.observe_live(batch())

    def replay(batch: Batch) -> Features:
        asked.append("dino")
        assert isinstance(stored, dict)
        return stored

    def refuse(*arguments: object) -> None:
        raise AssertionError("dino runs")

    dino.replay = replay
    dino.teacher.network.module.register_forward_pre_hook(refuse)
    assert siglip.replay is None
    losses = losses_of(both)
    assert asked == ["dino"]
    assert {name: float(x) for name, x in losses.items()} == {
        name: float(x) for name, x in expected.items()
    }


def test_a_teacher_without_methods_does_not_run_in_a_step() -> None:
    both = distiller("dino", "siglip", methods={**METHODS, "siglip": {}})

    def refuse(*arguments: object) -> None:
        raise AssertionError("siglip runs")

    both.distillations[1].teacher.network.module.register_forward_pre_hook(refuse)
    assert list(losses_of(both)) == ["task", "dino/lshfm", "dino/rkd"]


def test_what_is_for_one_teacher_alone_says_so() -> None:
    both = distiller("dino", "siglip")
    for ask in (lambda: both.teacher, lambda: both.replay):
        with pytest.raises(RecipeError, match="several teachers, dino, siglip"):
            ask()
    assert distiller("dino").teacher is not None


def test_scales_of_losses_have_the_labels_of_the_weights() -> None:
    both = distiller("dino", "siglip")
    scales = loss_scales(both, [batch()])
    assert list(scales) == list(both.weights)
    assert all(scale.gradient_norm > 0 for scale in scales.values())


def test_one_feature_cannot_have_the_widths_of_two_teachers() -> None:
    narrow = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    teachers = {"dino": wrapped("dino"), "narrow": Network(narrow.double(), input=INPUTS["siglip"])}
    entries = {name: OneTeacher(name, methods={"lshfm": {}}) for name in teachers}
    task = tasks.find("classification")
    with pytest.raises(ShapeError, match="16 for dino/lshfm and 6 for narrow/lshfm"):
        wire.distiller(Recipe(teachers=entries), wrapped("student"), teachers, task)


def test_the_classifier_comes_from_the_teacher_that_lends_it() -> None:
    methods: dict[str, dict[str, Any]] = {"dino": {"rkd": {}}, "siglip": {"simkd": {}}}
    both = distiller("dino", "siglip", methods=methods)
    lent = both.distillations[1].teacher.network.classifier_weight
    torch.testing.assert_close(both.student.classifier_weight, lent, rtol=0, atol=0)


def unics(**changes: Any) -> dict[str, dict[str, Any]]:
    common = {"stages": ["stage1"], "hidden": 8, "last_hidden": 8, "standardise": "none"}
    return {name: {"unic": {**common, **changes}} for name in ("dino", "siglip")}


def test_unic_drops_the_better_of_two_networks_on_each_image() -> None:
    both = distiller("dino", "siglip", methods=unics(drop=1.0))
    students = dict(both.trainable.methods.items())
    observed: Any = both.observe(batch())
    features = both.student.train().observe(batch()).features
    rows = {
        name: method.image_losses(features, of_group(observed, name.partition("/")[0]), batch())
        for name, method in students.items()
    }
    (dino,), (siglip,) = rows.values()
    losses = losses_of(both)
    worse = torch.maximum(dino, siglip)
    joint = losses["dino/unic"] + losses["siglip/unic"]
    torch.testing.assert_close(joint, worse.mean(), rtol=0, atol=1e-6)
    share = torch.where(dino >= siglip, dino, 0).mean()
    torch.testing.assert_close(losses["dino/unic"], share, rtol=0, atol=1e-6)
    both.trainable.methods.eval()  # as `Distiller.eval` does: all teachers stay
    kept = both.trainable(batch(), observed)
    torch.testing.assert_close(kept["dino/unic"], dino.mean() / 2, rtol=0, atol=1e-6)
    assert list(losses) == ["task", "dino/unic", "siglip/unic"]


def test_teachers_that_are_dropped_together_are_dropped_alike() -> None:
    methods = unics()
    methods["siglip"]["unic"]["drop"] = 0.25
    with pytest.raises(RecipeError, match=r"'dino/unic' has drop 0.5 and 'siglip/unic' 0.25"):
        distiller("dino", "siglip", methods=methods)


@pytest.mark.parametrize("places", [("penultimate", "intermediate"), ("penultimate", "both")])
def test_two_teachers_have_a_layer_of_letkd_each_at_another_place(places: tuple[str, str]) -> None:
    entries = {
        name: {"letkd": {"places": place, "intermediate": "stem", "words": 4, "subclasses": 2}}
        for name, place in zip(("dino", "siglip"), places, strict=True)
    }
    if places[1] == "both":
        with pytest.raises(
            ShapeError, match=r"a KD layer at its penultimate place already.* of two"
        ):
            distiller("dino", "siglip", methods=entries)
        return
    both = distiller("dino", "siglip", methods=entries)
    both.prepare([(batch().images, LABELS)])
    losses = losses_of(both)
    assert all(losses[f"{name}/letkd"] > 0 for name in entries)


def plain(seed: int) -> nn.Module:
    return network(seed=seed)


def test_wire_takes_several_teachers_each_with_its_methods_and_input() -> None:
    modules = {"dino": plain(1), "siglip": plain(2)}
    inputs = {"dino": INPUTS["dino"], "siglip": INPUTS["siglip"]}
    shown = images(4, 3, 32, 32).sigmoid()
    wired = understudy.wire(
        plain(0),
        modules,
        {"dino": {"rkd": 0.5}, "siglip": {"kd": {"weight": 2.0, "temperature": 2.0}}},
        example=shown,
        student_input=INPUTS["student"],
        teacher_input=inputs,
        taps={"siglip": {"mine": "1"}},
        seed=1,
    )
    losses: Any = wired.train()(shown, LABELS)
    assert list(losses) == ["task", "dino/rkd", "siglip/kd"]
    assert [wired.weights[name].value for name in losses] == [1.0, 0.5, 2.0]
    for name, methods in (("dino", {"rkd": 0.5}), ("siglip", {"kd": {"temperature": 2.0}})):
        alone = understudy.wire(
            plain(0),
            modules[name],
            methods,
            example=shown,
            student_input=INPUTS["student"],
            teacher_input=inputs[name],
        )
        (label,) = methods
        own: Any = alone.train()(shown, LABELS)
        torch.testing.assert_close(losses[f"{name}/{label}"], own[label])
    assert "mine" in wired.distillations[1].teacher.network.shapes


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"methods": {"kd": 1}}, "from their names to mappings"),
    ({"methods": {"dina": {"kd": 1}}}, "teacher 'dina' (did you mean 'dino'?)"),
    ({"methods": {"dino": {"kd": 1}}, "taps": {"teacher": {}}}, "{'dino': …} or {'siglip': …}"),
    ({"methods": {"dino": {"kd": 1}}, "teacher_input": INPUTS["dino"]}, "for one teacher, which"),
    (
        {"methods": {"task": {"kd": 1}}, "teacher": {"task": plain(1)}},
        "which is the loss on labels",
    ),
    ({"methods": {"student": {"kd": 1}}, "teacher": {"student": plain(1)}}, "another name"),
    (
        {"methods": {"dino": {"kd": 1}}, "teacher": {"dino": None, "siglip": plain(2)}},
        "The teacher dino is None",
    ),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_wire_refuses_what_belongs_to_no_teacher(changes: dict[str, Any], words: str) -> None:
    arguments = {"teacher": {"dino": plain(1), "siglip": plain(2)}, **changes}
    with pytest.raises(UnderstudyError, match=re.escape(words)):
        understudy.wire(plain(0), example=torch.rand(2, 3, 32, 32), **arguments)
