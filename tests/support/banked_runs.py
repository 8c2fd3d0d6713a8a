"""Runs with a bank, and what their teacher and their images were asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.data import FileViews, MemoryViews
from understudy.distillation.distiller import Teacher


def banked(wanted: Recipe, path: Path, **changes: Any) -> Recipe:
    return Recipe.load(wanted, {"bank.path": str(path), **changes})


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images each forward pass of the teacher saw."""
    seen: list[int] = []
    forward = Teacher.forward

    def spy(self: Teacher, batch: Batch) -> Any:
        seen.append(len(batch))
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "forward", spy)
        yield seen


@contextmanager
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images were shown each time."""
    seen: list[int] = []
    with monkeypatch.context() as patch:
        for views in (MemoryViews, FileViews):
            for name in ("__call__", "show"):
                patch.setattr(views, name, _counting(getattr(views, name), seen))
        yield seen


def _counting(method: Any, seen: list[int]) -> Any:
    def spy(self: Any, index: Any, number: Any) -> Any:
        seen.append(len(index))
        return method(self, index, number)

    return spy


def folder_of_images(root: Path, train: int = 12, test: int = 4) -> Path:
    """Two classes of random images in files, so many in each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
