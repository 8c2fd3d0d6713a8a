"""Loss scales: their values, and that measuring them leaves no trace in the distiller."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.distillation.small_networks import network
from tests.support.small_detectors import detector, scene
from understudy.batch import Batch
from understudy.distillation.distiller import Distiller
from understudy.distillation.loss_scales import loss_scales
from understudy.distillation.wire import wire
from understudy.errors import DataError, UnderstudyError

SIDE, CLASSES = 32, 4


def images(count: int = 8) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


def classification(**methods: Any) -> tuple[Distiller, list[Batch]]:
    """Networks with batch normalisation and dropout, and a memory of every image (crd)."""
    batches = [Batch.of(images(), torch.arange(8) % CLASSES) for _ in range(2)]
    student = network(classes=CLASSES, seed=1).insert(7, nn.Dropout(0.5))
    chosen: dict[str, Any] = methods or {
        "kd": {"weight": 0.9},
        "crd": {"negatives": 3},
        "pefd": {},
        "lshfm": {"hashes": 32},
    }
    return wired(student, network(classes=CLASSES, seed=2), chosen, "classification", batches)


def multilabel() -> tuple[Distiller, list[Batch]]:
    labels = (torch.arange(8 * CLASSES).view(8, -1) % 3 == 0).long()
    labels[0, 0] = -1
    networks = network(classes=CLASSES, seed=1), network(classes=CLASSES, seed=2)
    return wired(*networks, {"kd": {}, "nd": {}}, "multilabel", [Batch.of(images(), labels)])


@cache  # which the tests below allow: nothing changes it
def detection() -> tuple[Distiller, list[Batch]]:
    modules = (detector("fasterrcnn", "resnet18", seed=seed).module for seed in (1, 2))
    return wired(*modules, {"lshfm": {"hashes": 32}, "frs": {}}, "detection", [scene()])


def unlabelled() -> tuple[Distiller, list[Batch]]:
    networks = network(classes=CLASSES, seed=1), network(classes=CLASSES, seed=2)
    return wired(*networks, {"pkt": {}, "sp": {}}, "none", [Batch.of(images())])


def wired(
    student: nn.Module,
    teacher: nn.Module,
    methods: dict[str, Any],
    task: str,
    batches: list[Batch],
) -> tuple[Distiller, list[Batch]]:
    example = None if task == "detection" else images(2)
    distiller = wire(student, teacher, methods, task=task, example=example, seed=3).train()
    distiller.measure(lambda augmented: iter(batches[:1]), num_images=len(batches[0]))
    return distiller, batches


def fingerprint(distiller: Distiller) -> list[tuple[str, bytes]]:
    """Everything that a step of training could change, to the bit."""
    tensors = dict(distiller.named_parameters()) | dict(distiller.named_buffers())
    grads = {f"{k}.grad": p.grad for k, p in distiller.named_parameters() if p.grad is not None}
    return [
        *((name, x.detach().numpy().tobytes()) for name, x in {**tensors, **grads}.items()),
        *((f"{name}.training", bytes([m.training])) for name, m in distiller.named_modules()),
        ("torch", torch.get_rng_state().numpy().tobytes()),
        ("numpy", np.random.get_state()[1].tobytes()),  # type: ignore[union-attr]
        ("python", repr(random.getstate()).encode()),
    ]


EVERY_TASK = pytest.mark.parametrize(
    "build", [classification, multilabel, detection, unlabelled], ids=lambda f: f.__name__
)


@EVERY_TASK
@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_distiller_stays_the_same_to_the_bit(
    build: Callable[[], tuple[Distiller, list[Batch]]], precision: torch.dtype | None
) -> None:
    distiller, batches = build()
    distiller.student.eval()  # as somebody's loop may have left it
    before = fingerprint(distiller)
    scales = loss_scales(distiller, batches, precision=precision)
    assert fingerprint(distiller) == before
    task = [] if build is unlabelled else ["task"]
    assert list(scales) == [*task, *distiller.trainable.methods]
    assert all(np.isfinite(each.loss) and each.gradient_norm > 0 for each in scales.values())
    assert all((each.ratio is None) == (not task) for each in scales.values())
    assert loss_scales(distiller, batches, precision=precision) == scales


def test_bf16_measures_nearly_what_fp32_does() -> None:
    distiller, batches = classification(kd={"weight": 1.0}, fitnet={"feature": "penultimate"})
    full, half = (loss_scales(distiller, batches, precision=p) for p in (None, torch.bfloat16))
    for label, scale in full.items():
        assert half[label].loss == pytest.approx(scale.loss, rel=0.05)
        assert half[label].ratio == pytest.approx(scale.ratio, rel=0.1)


def test_a_ratio_is_taken_on_the_parameters_that_both_losses_reach() -> None:
    distiller, batches = classification(pefd={})
    scales = loss_scales(distiller, batches[:1])
    torch.manual_seed(0)  # the seed of `loss_scales`, so that dropout draws the same
    losses = distiller(batches[0])
    assert scales["pefd"].loss == pytest.approx(losses["pefd"].item())
    # Behind the penultimate feature there is the classifier, which pefd does not reach.
    *shared, weight, bias = distiller.student.parameters()
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, p, retain_graph=True)]).norm().item()
        for x, p in (
            (losses["pefd"], shared),
            (losses["task"], shared),
            (losses["task"], [*shared, weight, bias]),
        )
    ]
    assert scales["pefd"].gradient_norm == pytest.approx(norms[0], rel=1e-4)
    assert scales["pefd"].ratio == pytest.approx(norms[0] / norms[1], rel=1e-4)
    assert scales["task"].gradient_norm == pytest.approx(norms[2], rel=1e-4)
    assert scales["task"].ratio == 1


def test_a_weight_changes_no_scale() -> None:
    light, batches = classification(kd={"weight": 1e-3})
    heavy, _ = classification(kd={"weight": 1e3})
    assert loss_scales(light, batches) == loss_scales(heavy, batches)


def test_losses_of_a_detector_count_as_one() -> None:
    distiller, batches = detection()
    scales = loss_scales(distiller, batches)
    torch.manual_seed(0)
    losses = distiller.train()(batches[0])
    parts = [x.item() for name, x in losses.items() if name.startswith("task/")]
    assert len(parts) == 4
    assert scales["task"].loss == pytest.approx(sum(parts), rel=1e-4)


def test_where_no_image_has_a_label_there_is_no_ratio() -> None:
    distiller, _ = classification(kd={})
    scales = loss_scales(distiller, [Batch.of(images())])
    assert scales["task"].gradient_norm == 0
    assert scales["kd"].gradient_norm > 0
    assert scales["kd"].ratio is None


def test_no_batches_and_methods_that_did_not_measure_are_refused() -> None:
    distiller, _ = classification(kd={})
    with pytest.raises(DataError, match="no batches to measure"):
        loss_scales(distiller, [])
    unready = wire(network(seed=1), network(seed=2), {"srrl": {}}, example=images(2))
    with pytest.raises(UnderstudyError, match="must measure the teacher"):
        loss_scales(unready, [Batch.of(images(), torch.arange(8) % CLASSES)])


def test_a_bank_is_neither_read_nor_filled() -> None:
    distiller, batches = classification(kd={})

    def refuse(batch: Batch) -> Any:
        raise AssertionError("the bank was asked")

    distiller.replay = refuse
    assert loss_scales(distiller, batches)["kd"].ratio
