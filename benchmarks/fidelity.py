"""Drift of a student in 16 steps if its teacher's outputs are stored or computed differently.

The images and the trained teacher are those of the demo. All variants start from the same weights
and see the same views; they differ in the source of the teacher's features and, for `channels
last`, in the memory layout of both networks, which changes only rounding. `stale` uses features of
another view of the same image, as a cache does that ignores views. Reported are the distance of the
weights from those with the live fp32 teacher, relative to their norm, and the largest relative
difference of a step's loss; medians over three seeds.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import understudy
from benchmarks import ours
from understudy.batch import Batch
from understudy.config import recipe as recipes
from understudy.config.recipe import Recipe
from understudy.features import Features
from understudy.training.trainer import Trainer

STEPS, SEEDS = 16, (0, 1, 2)
IMAGES = 1100
"""Enough for the steps, and for the medians of lshfm."""
OTHER_VIEW = 1_000_000
Change = Callable[[Trainer], object]


def measure(rounds: int, *, lesson: int | None = None) -> dict[str, Any]:
    """Return the deviations of each variant, and those of fp16 storage over a layout change.

    Args:
        rounds: Ignored, since nothing is timed.
        lesson: Number of images that the teacher is trained on; default: all.
    """
    with tempfile.TemporaryDirectory() as name:
        wanted = _recipe(Path(name), lesson)
        runs = [_variants(Path(name) / str(seed), replace(wanted, seed=seed)) for seed in SEEDS]
    found = {
        variant: {what: median(run[variant][what] for run in runs) for what in figures}
        for variant, figures in runs[0].items()
    }
    layout = found["channels last"]["weights"]
    return {"variants": found, "fp16 over layout": found["bank fp16"]["weights"] / layout}


def _variants(folder: Path, wanted: Recipe) -> dict[str, dict[str, float]]:
    def stored(dtype: Any) -> Recipe:
        return replace(wanted, bank=recipes.Bank(path=str(folder / dtype), dtype=dtype))

    in_bf16 = replace(wanted.training, teacher_precision="bf16")
    other_layout = replace(wanted.training, channels_last=True)
    changed: dict[str, tuple[Recipe, Change]] = {
        "live again": (wanted, _nothing),
        "bank fp32": (stored("fp32"), _nothing),
        "bank fp16": (stored("fp16"), _nothing),
        "bank int8": (stored("int8"), _nothing),
        "channels last": (replace(wanted, training=other_layout), _nothing),
        "channels last teacher": (wanted, _channels_last),
        "bf16 teacher": (replace(wanted, training=in_bf16), _nothing),
        "stale": (wanted, _stale),
    }
    reference = _trained(folder, wanted, _nothing)
    return {
        name: _deviation(_trained(folder, *given), reference) for name, given in changed.items()
    }


def _recipe(folder: Path, lesson: int | None) -> Recipe:
    """Return the demo's recipe in fp32, with a teacher that is trained for two epochs."""
    taught = Recipe.load("fashion/teacher")
    shorter = replace(
        taught,
        data=replace(taught.data, images=lesson),
        training=replace(taught.training, epochs=2),
    )
    teacher = understudy.train(shorter, out=folder / "teacher", device="cpu")
    demo = Recipe.load("fashion/demo")
    papers = replace(demo.training, batch=64, lr=0.05, precision="fp32", channels_last=False)
    return replace(
        demo,
        data=replace(demo.data, images=IMAGES, labels=None, labelled_share=None),
        teacher=replace(demo.teacher, weights=str(teacher.path)),
        methods={"kd": {}, "lshfm": {}},
        training=papers,
    )


def _trained(folder: Path, wanted: Recipe, change: Change) -> tuple[Tensor, list[float]]:
    """Return the weights after the steps, and the loss of each step."""
    trainer = ours.runner(folder, wanted).trainer
    change(trainer)
    sums = [0.0]
    for number, _ in zip(range(1, STEPS + 1), trainer.steps(), strict=False):
        sums.append(trainer.mean_losses()["total"] * number)
    weights = torch.cat([p.detach().flatten() for p in trainer.student.parameters()])
    return weights, [after - before for before, after in pairwise(sums)]


def _deviation(
    found: tuple[Tensor, list[float]], reference: tuple[Tensor, list[float]]
) -> dict[str, float]:
    (weights, losses), (right, wanted) = found, reference
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses, wanted, strict=True))
    return {"weights": float((weights - right).norm() / right.norm()), "loss": worst}


def _nothing(_: Trainer) -> None: ...


def _channels_last(trainer: Trainer) -> None:
    """Change the teacher's memory layout: the same sums in another order."""
    assert trainer.distiller.teacher is not None
    trainer.distiller.teacher.to(memory_format=torch.channels_last)


def _stale(trainer: Trainer) -> None:
    trainer.distiller.replay = partial(_of_another_view, trainer)


def _of_another_view(trainer: Trainer, batch: Batch) -> Features:
    assert trainer.distiller.teacher is not None
    view = torch.full_like(batch.view, OTHER_VIEW)
    shown = replace(batch, images=trainer.loader.views(batch.index, view))
    features: Features = trainer.distiller.teacher(shown)
    return features
