"""Understudy's own training, one optimizer step at a time, as `understudy distill` would run it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.pairs import CLASSES, Pair, random_weights
from understudy.bank import Bank, Contract
from understudy.config import recipe as recipes
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Teacher
from understudy.experiment.runner import Runner
from understudy.features import Features
from understudy.models import cifar
from understudy.training.trainer import Trainer

PRECISIONS = {"fp32": "fp32", "best": "auto"}
"""Name in the results → `training.precision`; `auto` is the best of the machine."""


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
    """A recipe on the images in `folder / "images"`.

    Args:
        folder: Where all is written.
        pair: Networks, both untrained: speed does not depend on their weights.
        methods: As in a recipe; none trains the student alone.
        how: One of `PRECISIONS`, for student and teacher.
        bank: Name of a bank in `folder`, for this pair and precision; none is a live teacher.
        batch: Images of a step.
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
    """What a recipe trains, its methods prepared.

    Args:
        folder: Where its run directory lies.
        wanted: Recipe.
        fill: Put all that the first epoch shows into its bank, as random numbers: what a bank
            holds does not change how fast it is read.
    """
    with noise_for_a_teacher():
        made = runner(folder, wanted).trainer
        for parts in made.loader.epoch(0) if fill and wanted.bank.path else ():
            for shown in parts:
                made.distiller.observe(shown)
    return made


def runner(folder: Path, wanted: Recipe) -> Runner:
    """A recipe built and prepared on the CPU, in a run directory of its own."""
    number = len(list(folder.glob("runs/*")))
    path = folder / "runs" / str(number)
    return Runner(path, wanted, resume=False, device="cpu", callback=None).start()


def teacher_forwards(online: Trainer) -> Iterator[None]:
    """The forward passes alone of a live teacher in training, on images as it gets them."""
    teacher, memory_format = online.distiller.teacher, online.settings.memory_format
    assert teacher is not None
    for parts in online.loader.epoch(0):
        for shown in parts:
            teacher(shown.to(shown.images.device, memory_format))
        yield


def table(
    path: Path, images: int, views: int, features: Mapping[str, int], dtype: Any = "fp16"
) -> Bank:
    """An empty bank for vectors of so many numbers."""
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
    return Bank(path, contract)


@contextmanager
def noise_for_a_teacher() -> Iterator[list[int]]:
    """Random features at no cost in place of a forward pass; of how many images, each time."""
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
