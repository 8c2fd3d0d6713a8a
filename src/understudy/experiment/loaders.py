"""The loaders of a recipe: training images augmented and shuffled, all others in order."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.config.image_size import Size
from understudy.config.recipe import Recipe
from understudy.data import Loader, ObjectViews, Source, Views, views
from understudy.data.mixup import Mixing
from understudy.data.named_transforms import NONE, NamedTransforms
from understudy.errors import RecipeError
from understudy.experiment.images import data_seed
from understudy.tasks import Task

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Loaders:
    """Makes the loaders of one recipe, for process `rank` of `world`."""

    recipe: Recipe
    task: Task
    view_size: Size
    rank: int
    world: int

    def training(self, source: Source) -> Loader:
        """Return training images, shuffled and augmented, this process's share."""
        data, training = self.recipe.data, self.recipe.training
        boxes = self.task.truth == "objects"
        share = data.labelled_share
        if data.shuffle_buffer and source.shards is None:
            raise RecipeError(
                f"data.shuffle_buffer is for images in shards, and the source {data.source!r} has "
                "none (webdataset and parquet have): leave it out."
            )
        control = self.task.uses_labels and not boxes and not self.recipe.each_method
        if control and not source.labelled.all():
            share = 1.0  # A control has no use for an image without a label.
        return Loader(
            self._views(source, augmented=True),
            self._labels(source),
            batch=training.batch,
            seed=self.recipe.seed,
            shuffle=True,
            portrait=_portrait(source) if boxes else None,
            labelled_share=share,
            balance=data.balance,
            shards=source.shards,
            shuffle_buffer=data.shuffle_buffer,
            mixing=Mixing(data.mixup, data.cutmix),
            smoothing=training.label_smoothing,
            drop_last=training.drop_last,
            accumulate=training.accumulate,
            rank=self.rank,
            world=self.world,
            workers=data.workers,
        )

    def everything(self, source: Source) -> Loader:
        """Return all training images in order, the same in every process."""
        return self._ordered(source, self._labels(source), rank=0, world=1, augmented=True)

    def test(self, source: Source) -> Loader:
        """Return test images in order, this process's share."""
        return self._ordered(source, source.labels, rank=self.rank, world=self.world)

    def _ordered(
        self, source: Source, labels: Tensor, *, rank: int, world: int, augmented: bool = False
    ) -> Loader:
        boxes = self.task.truth == "objects"
        return Loader(
            self._views(source, augmented=augmented),
            labels,
            batch=self.recipe.training.batch if boxes else EVALUATION_BATCH,
            seed=self.recipe.seed,
            shuffle=False,
            rank=rank,
            world=world,
            workers=self.recipe.data.workers,
        )

    def _views(self, source: Source, *, augmented: bool) -> Views:
        data, seed = self.recipe.data, data_seed(self.recipe)
        # Measuring executes no function of a user's file.
        named = NamedTransforms(data.transforms) if augmented else NONE
        if self.task.truth == "objects":
            return ObjectViews(
                source, augment=data.augment, seed=seed, jitter=data.jitter, named=named
            )
        return views.make_views(
            source,
            augment=data.augment,
            size=self.view_size,
            seed=seed,
            jitter=data.jitter,
            channels_last=bool(self.recipe.training.channels_last),
            named=named,
        )

    def _labels(self, source: Source) -> Tensor:
        """Return the labels for training; all unknown where the task uses none."""
        unlabelled = torch.full((len(source),), UNLABELLED)
        return source.labels if self.task.uses_labels else unlabelled


def _portrait(source: Source) -> Tensor:
    """Return which images are higher than wide."""
    height, width = source.sides().unbind(1)
    return height > width
