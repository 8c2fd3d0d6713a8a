"""Understudy's own training, one optimizer step at a time, as in `understudy distill`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.pairs import CLASSES, Pair, random_weights
from understudy.bank import Bank, Contract, open_bank
from understudy.config import recipe as recipes
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.experiment.runner import Runner
from understudy.features import Features
from understudy.models import cifar
from understudy.training.trainer import Trainer

PRECISIONS = {"fp32": "fp32", "best": "auto"}
"""Name in the results → `training.precision`; `auto` picks the best one of the machine."""


def recipe(
    folder: Path,
    pair: Pair,
    methods: Mapping[str, Any],
    *,
    how: str = "fp32",
    bank: str = "",
    batch: int = 64,
    options: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return a recipe for the images in `folder / "images"`.

    Args:
        folder: Folder of all files.
        pair: Networks, both untrained: their weights do not affect the speed.
        methods: Methods as in a recipe; if empty, the student is trained alone.
        how: Precision of student and teacher, a key of `PRECISIONS`.
        bank: Name of a bank in `folder`, for this pair and precision; empty for a live teacher.
        batch: Batch size.
        options: Arguments of the teacher's factory.
    """
    named = f"{bank}-{pair.teacher}-{how}"
    return Recipe(
        name="benchmark",
        data=recipes.Data(source="cifar100", root=str(folder / "images")),
        student=recipes.Network(name=pair.student),
        teacher=recipes.Network(
            name=pair.teacher,
            weights=str(_weights(folder, pair.teacher, options or {})),
            options=dict(options or {}),
        ),
        methods={name: dict(given) for name, given in methods.items()},
        bank=recipes.Bank(
            path=str(folder / named) if bank else "",
            dtype="fp32" if how == "fp32" else "fp16",
            codes=True,
        ),
        training=recipes.Training(precision=PRECISIONS[how], batch=batch),
    )


def trainer(folder: Path, wanted: Recipe, *, fill: bool = True) -> Trainer:
    """Return the trainer of a recipe, with prepared methods.

    Args:
        folder: Folder of the run directory.
        wanted: Recipe.
        fill: Fill the bank with random numbers for all views of the first epoch: the values do not
            affect the speed.
    """
    with noise_for_a_teacher():
        made = runner(folder, wanted).trainer
        for parts in made.loader.epoch(0) if fill and wanted.bank.path else ():
            for shown in parts:
                made.distiller.observe(shown)
    return made


def runner(folder: Path, wanted: Recipe) -> Runner:
    """Return a recipe's runner, built and prepared on the CPU, with its own run directory."""
    number = len(list(folder.glob("runs/*")))
    path = folder / "runs" / str(number)
    return Runner.start(path, wanted, device="cpu")


def teacher_forwards(online: Trainer) -> Iterator[None]:
    """Run only the forward passes of a live teacher, on the images of training."""
    teacher, memory_format = online.distiller.teacher, online.settings.memory_format
    assert teacher is not None
    for parts in online.loader.epoch(0):
        for shown in parts:
            teacher(shown.to(shown.images.device, memory_format))
        yield


def table(
    path: Path, images: int, views: int, features: Mapping[str, int], dtype: Any = "fp16"
) -> Bank:
    """Return an empty bank for features that are vectors."""
    contract = Contract(
        teacher="untrained",
        input="",
        precision="fp32",
        images="random",
        transform="",
        num_images=images,
        num_views=views,
        features={name: (width,) for name, width in features.items()},
        dtype=dtype,
    )
    return open_bank(str(path), contract)


@contextmanager
def noise_for_a_teacher() -> Iterator[list[int]]:
    """Replace the teacher's forward pass by random features; yield the list of batch sizes."""
    asked: list[int] = []

    def forward(teacher: Teacher, images: Float[Tensor, "batch 3 height width"]) -> Features:
        asked.append(len(images))
        shapes = teacher.network.shapes
        return {name: torch.randn(len(images), *shapes[name]) for name in ("penultimate", "logits")}

    with patch.object(Teacher, "forward", forward):
        yield asked


def _weights(folder: Path, name: str, options: Mapping[str, Any]) -> Path:
    path = folder / "teachers" / f"{name}{hash(str(options))}.pth"
    if not path.exists():
        random_weights(cifar.models()[name](num_classes=CLASSES, **options), path)
    return path
