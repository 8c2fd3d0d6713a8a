"""From names to objects: what a recipe says, built."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from understudy import data, tasks
from understudy.batch import UNLABELLED
from understudy.config.recipe import Data, Recipe
from understudy.data import DecodedSource, Loader, ObjectViews, Source, Views, subset, views
from understudy.data.class_names import check as check_classes
from understudy.data.mixup import Mixing
from understudy.data.subset import Subset
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import distiller, train_only
from understudy.errors import DataError, RecipeError
from understudy.experiment import networks
from understudy.experiment.networks import classes_of, network
from understudy.functional import seeded
from understudy.models.base import Wrapped
from understudy.models.network import Network
from understudy.models.weights import digest
from understudy.tasks import Task

EVALUATION_BATCH = 256
LARGE = 224
"""Side of the views where neither the images nor the networks have one of their own."""

_TRUTHS = {
    "class": "the one class",
    "classes": "the presence of each class",
    "objects": "boxes of the objects",
}

_NOT_OF_BOXES = {
    "labels": "about classes, of which it can hide some, but no boxes",
    "labelled_share": "about classes that are not known, but all boxes are",
    "size": "the side of square views, but a detector resizes images by its own options",
}
"""Keys of `data` that mean nothing where images have boxes, and why."""

Images = tuple[Source, Source]
"""Training and test images."""


@dataclass(frozen=True)
class Experiment:
    """Everything a recipe names, built."""

    distiller: Distiller
    task: Task
    images: Source
    train: Loader
    everything: Loader
    test: Loader
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    digests: dict[str, str]
    """Of the training images, the test images and the teacher, if there is one."""

    @property
    def teacher(self) -> Wrapped | None:
        """The teacher, if the recipe has one."""
        return self.distiller.teacher.network if self.distiller.teacher else None

    def prepare(self) -> None:
        """Let every method measure the teacher on all training images, in every process alike."""
        loader, stored = self.everything, self.distiller.stored
        self.distiller.measure(
            lambda augmented: loader.single_pass(augmented=augmented, stored=stored),
            num_images=len(loader.labels),
        )


def experiment(
    recipe: Recipe, *, rank: int = 0, world: int = 1, images: Images | None = None
) -> Experiment:
    """Build what a recipe names, for process `rank` of `world`.

    Args:
        recipe: Says what.
        rank: Number of this process.
        world: How many there are.
        images: What `sources` gave for this recipe, if it was asked already.

    Raises:
        UnderstudyError: Whatever the recipe names is missing, or does not fit together.
    """
    task = tasks.find(recipe.task, recipe.training)
    train, test = images or sources(recipe)
    teacher = _teacher(recipe, train, task)
    with seeded(recipe.seed):
        classes = _num_classes(train, teacher, task)
        student = network(
            recipe.student, classes, "student", task=task, shown=_shown(recipe, train)
        )
    wired = distiller(recipe, student, teacher, task)
    train_only(student, recipe.training.only)
    show = _Loaders(recipe, _side(recipe, train, student), rank, world)
    return Experiment(
        distiller=wired,
        task=task,
        images=train,
        train=show.training(train, task),
        everything=show.everything(train, task),
        test=show.test(test, task),
        classes=_names(recipe, train, student),
        skipped=train.skipped + test.skipped,
        digests=_digests(train, test, teacher),
    )


def _digests(train: Source, test: Source, teacher: Wrapped | None) -> dict[str, str]:
    known = {"training images": train.digest, "test images": test.digest}
    return known | ({"teacher": digest(teacher.module)[:16]} if teacher else {})


@dataclass(frozen=True)
class Examination:
    """A trained student with what it is measured on."""

    student: Wrapped
    teacher: Wrapped | None
    task: Task
    test: Loader
    classes: tuple[str, ...]


def examination(recipe: Recipe, weights: Path) -> Examination:
    """The student in a file of weights, and the test images and teacher of a recipe.

    Raises:
        UnderstudyError: As for `experiment`; also if the student was trained for other classes.
    """
    test = _test(recipe)
    check_classes(test.classes, classes_of(weights), of="student")
    task = tasks.find(recipe.task, recipe.training)
    teacher = _teacher(recipe, test, task)
    wanted, classes = (
        replace(recipe.student, weights=str(weights)),
        _num_classes(test, teacher, task),
    )
    shown = _shown(recipe, test)
    student = network(wanted, classes, "student", task=task, shown=shown, exact=True)
    show = _Loaders(recipe, _side(recipe, test, student), rank=0, world=1)
    return Examination(student, teacher, task, show.test(test, task), test.classes)


def sources(recipe: Recipe) -> Images:
    """Training and test images of a recipe."""
    wanted = recipe.data
    train, test = _loaded(recipe, "train"), _test(recipe)
    check_classes(test.classes, train.classes, of="training split")
    if wanted.validation:
        train, _ = subset.split(train, wanted.validation, seed=_data_seed(recipe))
    if wanted.images is not None or wanted.labels is not None:
        train = subset.class_balanced(
            train, images=wanted.images, labels=wanted.labels, seed=_data_seed(recipe)
        )
    if recipe.task != "none" and not train.labelled.any():
        raise DataError(
            f"None of the {len(train)} training images has a label; sort them into one folder per "
            "class, or train without labels by --task none."
        )
    return train, test


def _test(recipe: Recipe) -> Source:
    wanted = recipe.data
    if not wanted.validation:
        return _loaded(recipe, "test")
    _, held = subset.split(_loaded(recipe, "train"), wanted.validation, seed=_data_seed(recipe))
    if recipe.task != "multilabel" or wanted.difficult == "ignore":
        return held
    # What is difficult is present in training alone; the split goes by the labels of training.
    told = _loaded(replace(recipe, data=replace(wanted, difficult="ignore")), "train")
    return Subset(told, held.index, told.labels[held.index])


def _loaded(recipe: Recipe, split: Literal["train", "test"]) -> Source:
    """The images of one split; those that are not in memory come from the decoded ones."""
    wanted = recipe.data
    load: Callable[..., Source] = data.find(wanted.source).load
    source = load(wanted.root, split, unreadable=wanted.unreadable, **_options(wanted, load))
    _refuse(recipe, source)
    small = source.pixels is not None
    if wanted.decoded_side and (small or not wanted.decoded):
        reason = "these are small and kept in memory: leave it out" if small else "set data.decoded"
        raise RecipeError(
            f"data.decoded_side={wanted.decoded_side} reduces the images that are kept decoded in "
            f"a folder; {reason}."
        )
    if small or not wanted.decoded:
        return source
    return DecodedSource(source, Path(wanted.decoded) / split, side=wanted.decoded_side)


def _options(wanted: Data, load: Callable[..., Source]) -> dict[str, str]:
    """What the recipe says of faulty and difficult objects, for a source that knows of any."""
    known: dict[str, str] = {"faulty": wanted.faulty, "difficult": wanted.difficult}
    if set(known) <= set(signature(load).parameters):
        return known
    for key, value in known.items():
        if value != getattr(Data(), key):
            raise RecipeError(
                f"data.{key}={value} is about boxes, which the source {wanted.source!r} does not "
                "read: leave it out, or use one with boxes, such as voc or coco."
            )
    return {}


def _refuse(recipe: Recipe, source: Source) -> None:
    """Refuse images of which the source does not tell what the task has to know."""
    task, several = tasks.find(recipe.task), source.labels.ndim == 2
    told = {"class": not several, "classes": several, "objects": source.target(0) is not None}
    if task.uses_labels and not told[task.truth]:
        raise DataError(
            f"The task {recipe.task!r} needs {_TRUTHS[task.truth]} in every image, which the "
            f"source {recipe.data.source!r} does not tell of {recipe.data.root or 'its images'}; "
            "choose another task or source."
        )
    for key in ("labels", "labelled_share", "size"):
        if task.truth == "objects" and getattr(recipe.data, key) is not None:
            raise RecipeError(f"data.{key} is {_NOT_OF_BOXES[key]}: leave it out for detection.")


def _data_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def _num_classes(source: Source, teacher: Wrapped | None, task: Task) -> int | None:
    """Classes of the data; of the teacher where the data have none, or theirs do not matter."""
    ours, theirs = len(source.classes) or None, teacher.num_classes if teacher else None
    return ours or theirs if task.uses_labels else theirs or ours


def _names(recipe: Recipe, source: Source, student: Wrapped) -> tuple[str, ...]:
    """Names of the student's classes, from the data or from the teacher; none if nobody knows."""
    known = (source.classes, classes_of(Path(recipe.teacher.weights)))
    return next((names for names in known if len(names) == student.num_classes), ())


def _teacher(recipe: Recipe, source: Source, task: Task) -> Wrapped | None:
    return networks.teacher(recipe, source.classes, task, shown=_shown(recipe, source))


def _side(recipe: Recipe, source: Source, student: Wrapped) -> int:
    """Side of the views in pixels."""
    own = student.input.size if isinstance(student, Network) else None
    return recipe.data.size or source.size or own or LARGE


def _shown(recipe: Recipe, source: Source) -> int:
    """Side of the views, as far as it is known before there is a student."""
    return recipe.data.size or source.size or recipe.student.size or LARGE


@dataclass(frozen=True)
class _Loaders:
    """Makes the loaders of one recipe."""

    recipe: Recipe
    size: int
    rank: int
    world: int

    def training(self, source: Source, task: Task) -> Loader:
        """Shuffled and augmented, this process's share."""
        labels = _labels(source, task)
        share = self.recipe.data.labelled_share
        needless = task.uses_labels and task.truth != "objects" and not self.recipe.methods
        if needless and not source.labelled.all():
            share = 1.0  # A control has no use for an image without a label.
        return Loader(
            self._views(source, task),
            labels,
            batch=self.recipe.training.batch,
            seed=self.recipe.seed,
            shuffle=True,
            portrait=_portrait(source) if task.truth == "objects" else None,
            labelled_share=share,
            mixing=Mixing(self.recipe.data.mixup, self.recipe.data.cutmix),
            smoothing=self.recipe.training.label_smoothing,
            drop_last=self.recipe.training.drop_last,
            accumulate=self.recipe.training.accumulate,
            rank=self.rank,
            world=self.world,
            workers=self.recipe.data.workers,
        )

    def everything(self, source: Source, task: Task) -> Loader:
        """All training images in order, alike in every process."""
        return self._ordered(source, task, _labels(source, task), rank=0, world=1)

    def test(self, source: Source, task: Task) -> Loader:
        """All test images in order, this process's share."""
        return self._ordered(source, task, source.labels, rank=self.rank, world=self.world)

    def _ordered(
        self, source: Source, task: Task, labels: Tensor, *, rank: int, world: int
    ) -> Loader:
        return Loader(
            self._views(source, task),
            labels,
            batch=self.recipe.training.batch if task.truth == "objects" else EVALUATION_BATCH,
            seed=self.recipe.seed,
            shuffle=False,
            rank=rank,
            world=world,
            workers=self.recipe.data.workers,
        )

    def _views(self, source: Source, task: Task) -> Views:
        wanted = self.recipe.data
        seed = _data_seed(self.recipe)
        if task.truth == "objects":
            return ObjectViews(source, augment=wanted.augment, seed=seed, jitter=wanted.jitter)
        return views.make_views(
            source,
            augment=wanted.augment,
            size=self.size,
            seed=seed,
            jitter=wanted.jitter,
            channels_last=bool(self.recipe.training.channels_last),
        )


def _labels(source: Source, task: Task) -> Tensor:
    return source.labels if task.uses_labels else torch.full((len(source),), UNLABELLED)


def _portrait(source: Source) -> Tensor:
    height, width = source.sides().unbind(1)
    return height > width
