"""Images of a run, on which exported networks are checked and int8 is calibrated."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.data import Source
from understudy.data.subset import Subset
from understudy.diagnostics import sample_images
from understudy.experiment.images import read_images, read_test_images
from understudy.experiment.run_directory import Run
from understudy.tasks import Task


@dataclass(frozen=True)
class RunImages:
    """Some images of a run, evenly chosen from all of a split.

    Attributes:
        task: Task of the run.
        source: The images.
        split: What they are, such as `test images`.
    """

    task: Task
    source: Source
    split: str

    def __len__(self) -> int:
        return len(self.source.labels)

    def pictures(self) -> Iterator[Tensor]:
        """Yield whole images of uint8 `(3, height, width)`, one after the other."""
        return (self.source.image(i) for i in range(len(self)))

    def metric(self, outputs: Tensor) -> float | None:
        """Return the metric that ranks students, of the logits for all images; None without one."""
        rows = {"index": torch.arange(len(outputs)), "labels": self.source.labels}
        metrics = self.task.measure({**rows, "logits": outputs}).metrics
        return metrics.get(self.task.headline)


def test_images(run: Run, overrides: Mapping[str, Any] | None, *, count: int | None) -> RunImages:
    """Read the test images of a run.

    Args:
        run: The run.
        overrides: Keys of its recipe to replace, such as `{"data.root": "elsewhere"}`.
        count: Number of images to choose; None for all.

    Raises:
        UnderstudyError: The images are missing or cannot be used.
    """
    recipe, task = _recipe(run, overrides)
    images = read_test_images(recipe, task, trained_on=run.trained_on)
    return RunImages(task, spread(images.test, count), f"{images.measured} images")


def training_images(run: Run, overrides: Mapping[str, Any] | None, *, count: int) -> RunImages:
    """Read training images of a run; the arguments are those of `test_images`.

    Raises:
        UnderstudyError: The images are missing or cannot be used.
    """
    recipe, task = _recipe(run, overrides)
    train = read_images(recipe, task).train
    return RunImages(task, spread(train, count), "training images")


def _recipe(run: Run, overrides: Mapping[str, Any] | None) -> tuple[Recipe, Task]:
    recipe = Recipe.load(replace(run.recipe, trust=False), overrides)
    return recipe, tasks.find(recipe.task, recipe.training)


def spread(source: Source, count: int | None) -> Source:
    """Return `count` images evenly spaced over a source, which may be sorted by class."""
    total = len(source.labels)
    if count is None or count >= total:
        return source
    index = sample_images.spread(total, count)
    return Subset(source, index, source.labels[index])
