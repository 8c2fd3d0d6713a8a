"""From names to objects: what a recipe says, built."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from understudy import data, models, recipe, tasks
from understudy.batch import UNLABELLED
from understudy.data import DecodedSource, Loader, Source, Views, subset, views
from understudy.data.classes import check as check_classes
from understudy.data.mixing import Mixing
from understudy.distiller import Distiller
from understudy.errors import DataError, NetworkError, RecipeError
from understudy.models.network import Network
from understudy.models.weights import digest
from understudy.recipe import Recipe
from understudy.tasks import Task
from understudy.wiring import distiller, seeded, train_only

EVALUATION_BATCH = 256
LARGE = 224
"""Side of the views where neither the images nor the networks have one of their own."""


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
    def teacher(self) -> Network | None:
        """The teacher, if the recipe has one."""
        return self.distiller.teacher.network if self.distiller.teacher else None

    def prepare(self) -> None:
        """Let every method measure the teacher on all training images, in every process alike."""
        loader, stored = self.everything, self.distiller.stored
        self.distiller.measure(
            lambda augmented: loader.once(augmented=augmented, stored=stored),
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
    task = tasks.find(recipe.task)
    train, test = images or sources(recipe)
    teacher = _teacher(recipe, train)
    with seeded(recipe.seed):
        classes = _num_classes(train, teacher, task)
        student = network(recipe.student, classes, "student", shown=_shown(recipe, train))
    wired = distiller(recipe, student, teacher, task)
    train_only(student, recipe.training.only)
    show = _Loaders(recipe, _side(recipe, train, student), rank, world)
    return Experiment(
        distiller=wired,
        task=task,
        images=train,
        train=show.training(train, task),
        everything=show.everything(train, task),
        test=show.test(test),
        classes=_names(recipe, train, student),
        skipped=train.skipped + test.skipped,
        digests=_digests(train, test, teacher),
    )


def _digests(train: Source, test: Source, teacher: Network | None) -> dict[str, str]:
    known = {"training images": train.digest, "test images": test.digest}
    return known | ({"teacher": digest(teacher.module)[:16]} if teacher else {})


@dataclass(frozen=True)
class Examination:
    """A trained student with what it is measured on."""

    student: Network
    teacher: Network | None
    task: Task
    test: Loader
    classes: tuple[str, ...]


def examination(recipe: Recipe, weights: Path) -> Examination:
    """The student in a file of weights, and the test images and teacher of a recipe.

    Raises:
        UnderstudyError: As for `experiment`; also if the student was trained for other classes.
    """
    test = _test(recipe)
    check_classes(test.classes, _classes_of(weights))
    teacher, task = _teacher(recipe, test), tasks.find(recipe.task)
    wanted, classes = (
        replace(recipe.student, weights=str(weights)),
        _num_classes(test, teacher, task),
    )
    student = network(wanted, classes, "student", shown=_shown(recipe, test), exact=True)
    show = _Loaders(recipe, _side(recipe, test, student), rank=0, world=1)
    return Examination(student, teacher, task, show.test(test), test.classes)


def sources(recipe: Recipe) -> Images:
    """Training and test images of a recipe."""
    wanted = recipe.data
    train, test = _loaded(wanted, "train"), _test(recipe)
    check_classes(test.classes, train.classes)
    if wanted.validation:
        train, _ = subset.split(train, wanted.validation, seed=_data_seed(recipe))
    if wanted.images is not None or wanted.labels is not None:
        train = subset.class_balanced(
            train, images=wanted.images, labels=wanted.labels, seed=_data_seed(recipe)
        )
    if recipe.task != "none" and not (train.labels != UNLABELLED).any():
        raise DataError(
            f"None of the {len(train)} training images has a label; sort them into one folder per "
            "class, or train without labels by --task none."
        )
    return train, test


def _test(recipe: Recipe) -> Source:
    wanted = recipe.data
    if not wanted.validation:
        return _loaded(wanted, "test")
    whole = _loaded(wanted, "train")
    return subset.split(whole, wanted.validation, seed=_data_seed(recipe))[1]


def _loaded(wanted: recipe.Data, split: Literal["train", "test"]) -> Source:
    """The images of one split; those that are not in memory come from the decoded ones."""
    source = data.find(wanted.source).load(wanted.root, split, unreadable=wanted.unreadable)
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


def _data_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def _num_classes(source: Source, teacher: Network | None, task: Task) -> int | None:
    """Classes of the data; of the teacher where the data have none, or theirs do not matter."""
    ours, theirs = len(source.classes) or None, teacher.num_classes if teacher else None
    return ours or theirs if task.uses_labels else theirs or ours


def _names(recipe: Recipe, source: Source, student: Network) -> tuple[str, ...]:
    """Names of the student's classes, from the data or from the teacher; none if nobody knows."""
    known = (source.classes, _classes_of(Path(recipe.teacher.weights)))
    return next((names for names in known if len(names) == student.num_classes), ())


def network(
    wanted: recipe.Network,
    num_classes: int | None,
    role: str,
    *,
    shown: int,
    exact: bool = False,
) -> Network:
    """The network a recipe names; a run directory as weights also tells which network it holds.

    A network without a size of its own takes the images as they are `shown`, in pixels a side.
    A student that starts from weights of other classes gets a new classifier, unless `exact`. A
    teacher keeps its own, whatever classes it tells apart: some methods do not look at them.
    """
    if wanted.weights not in ("", "pretrained") and not Path(wanted.weights).exists():
        raise NetworkError(
            f"There is no file or directory '{wanted.weights}' to take the {role}'s weights from: "
            f"correct --{role}.weights."
        )
    made_by = Path(wanted.weights) / "recipe.yaml"
    if not wanted.name and made_by.is_file():
        wanted = _completed(wanted, recipe.load(made_by).student)
    if not wanted.name and wanted.weights:
        raise NetworkError(
            f"The weights '{wanted.weights}' are no run directory and do not tell which network "
            f"they are of: give --{role}.name."
        )
    if not wanted.name:
        raise RecipeError(f"The recipe names no {role}: give --{role}.name.")
    return models.find(
        wanted.name,
        num_classes=num_classes,
        weights=wanted.weights,
        options=wanted.options,
        taps=wanted.taps,
        size=wanted.size,
        shown=shown,
        mean=wanted.mean,
        std=wanted.std,
        new_classifier=role == "student" and not exact,
        own_classes=role == "teacher",
    )


def _completed(wanted: recipe.Network, stored: recipe.Network) -> recipe.Network:
    """A network as a run was made with it, where nothing else is asked for."""
    asked = {
        f.name: getattr(wanted, f.name)
        for f in fields(recipe.Network)
        if getattr(wanted, f.name) not in ("", None, {})
    }
    return replace(stored, **asked)


def _teacher(recipe: Recipe, source: Source) -> Network | None:
    if not (recipe.teacher.name or recipe.teacher.weights):
        return None
    bare = not recipe.teacher.weights and not recipe.teacher.name.startswith("hf:")
    if bare and recipe.methods:
        raise NetworkError(
            f"The teacher {recipe.teacher.name} has no weights and would teach noise: give "
            "--teacher.weights, a file, a run directory or 'pretrained'."
        )
    classes, taught = source.classes, _classes_of(Path(recipe.teacher.weights))
    with seeded(recipe.seed):
        # Unlabelled images tell of no classes, but a run that trained the teacher does.
        known = len(classes or taught) or None
        teacher = network(recipe.teacher, known, "teacher", shown=_shown(recipe, source))
    if len(classes) == teacher.num_classes:
        check_classes(classes, taught)
    return teacher


def _classes_of(weights: Path) -> tuple[str, ...]:
    """The class names that a run directory or a student's file records; none for other weights."""
    path = weights / "student.safetensors" if weights.name and weights.is_dir() else weights
    if path.suffix != ".safetensors" or not path.is_file():
        return ()
    with safe_open(path, framework="pt") as file:
        return tuple(json.loads((file.metadata() or {}).get("classes", "[]")))


def _side(recipe: Recipe, source: Source, student: Network) -> int:
    """Side of the views in pixels."""
    return recipe.data.size or source.size or student.input.size or LARGE


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
        if task.uses_labels and not self.recipe.methods and (labels == UNLABELLED).any():
            share = 1.0  # A control has no use for an image without a label.
        return Loader(
            self._views(source),
            labels,
            batch=self.recipe.training.batch,
            seed=self.recipe.seed,
            shuffle=True,
            labelled_share=share,
            mixing=Mixing(self.recipe.data.mixup, self.recipe.data.cutmix),
            smoothing=self.recipe.training.label_smoothing,
            accumulate=self.recipe.training.accumulate,
            rank=self.rank,
            world=self.world,
            workers=self.recipe.data.workers,
        )

    def everything(self, source: Source, task: Task) -> Loader:
        """All training images in order, alike in every process."""
        return self._ordered(source, _labels(source, task), rank=0, world=1)

    def test(self, source: Source) -> Loader:
        """All test images in order, this process's share."""
        return self._ordered(source, source.labels, rank=self.rank, world=self.world)

    def _ordered(self, source: Source, labels: Tensor, *, rank: int, world: int) -> Loader:
        return Loader(
            self._views(source),
            labels,
            batch=EVALUATION_BATCH,
            seed=self.recipe.seed,
            shuffle=False,
            rank=rank,
            world=world,
            workers=self.recipe.data.workers,
        )

    def _views(self, source: Source) -> Views:
        wanted = self.recipe.data
        seed = _data_seed(self.recipe)
        return views.of(
            source,
            augment=wanted.augment,
            size=self.size,
            seed=seed,
            jitter=wanted.jitter,
            channels_last=bool(self.recipe.training.channels_last),
        )


def _labels(source: Source, task: Task) -> Tensor:
    return source.labels if task.uses_labels else torch.full_like(source.labels, UNLABELLED)
