"""Training, validation and test images of a recipe: read, split and reduced as `data` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

from understudy import data, tasks
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.data import Source, subset
from understudy.data.class_names import check as check_classes
from understudy.data.class_names import warn_of_alike
from understudy.data.replaced import found_since
from understudy.data.sources import NoSplit
from understudy.data.subset import Subset
from understudy.errors import DataError, RecipeError
from understudy.experiment.defaults import Choice, held_out
from understudy.experiment.read_split import read_split
from understudy.experiment.shared_images import warn_of_shared
from understudy.experiment.unlabelled import unlabelled_folder, with_unlabelled
from understudy.tasks import Task

_SPLIT_SEED = 0
"""Seed of what is held out. Were it that of the run, one run would be measured on images that its
teacher, or the run whose weights it starts from, was trained on."""


@dataclass(frozen=True)
class Images:
    """Images of a recipe, for one seed.

    Attributes:
        train: Images to train on.
        test: Images that measure a finished student. The validation images, where a data set has
            no test split.
        validation: Images that choose the best epoch; None without any.
        origins: Split → where its images come from, for messages.
        held_out: Share of the training images that became the validation split, where the recipe
            left it open.
    """

    train: Source
    test: Source
    validation: Source | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    held_out: Choice | None = None

    @property
    def measured(self) -> Literal["validation", "test"]:
        """The split that measures a finished student."""
        return "validation" if self.validation is self.test else "test"

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images and objects that were left out or repaired, each with the reason."""
        # What is held out of the training images shares their list.
        chosen_on = self.validation.skipped if self.validation else ()
        lines = tuple(dict.fromkeys(self.train.skipped + chosen_on))
        return lines if self.test in (self.train, self.validation) else lines + self.test.skipped

    @property
    def replaced(self) -> tuple[str, ...]:
        """Images that were found faulty since they were listed, each with the reason."""
        sources = filter(None, (self.train, self.validation, self.test))
        return tuple(dict.fromkeys(line for source in sources for line in found_since(source)))

    def counts(self) -> dict[str, dict[str, Any] | None]:
        """Return split → number of images and their origin, as in `environment.json`."""
        test = None if self.measured == "validation" else self.test
        by_name = {"train": self.train, "validation": self.validation, "test": test}
        return {
            name: {"images": len(source), "origin": self.origins.get(name, "")} if source else None
            for name, source in by_name.items()
        }


def skipped_sentence(skipped: Sequence[str]) -> str:
    """Return how many images were left out or repaired, with the first one as an example."""
    images = f"{len(skipped)} image{'s' * (len(skipped) != 1)}"
    return f"{images} skipped or repaired (first: {skipped[0]}; all in environment.json)"


@final
class ImagesOfRecipes:
    """Images of the recipe that asked last, for all that use the same; read when asked for."""

    def __init__(self) -> None:
        self._key: object = None
        self._images: Images | None = None

    def __call__(self, recipe: Recipe) -> Images:
        """Return the images of a recipe; let go of those of another one."""
        if self._images is None or self._key_of(recipe) != self._key:
            images = read_images(recipe, tasks.find(recipe.task, recipe.training))
            self.keep(recipe, images)
            return images
        return self._images

    def keep(self, recipe: Recipe, images: Images) -> None:
        """Keep images that were read already for a recipe."""
        # A share that was chosen for it is what the runs that follow ask for.
        share = recipe.data.validation if images.held_out is None else images.held_out.value
        recipe = replace(recipe, data=replace(recipe.data, validation=share))
        self._key, self._images = self._key_of(recipe), images

    def forget(self) -> None:
        """Let go of the images; they are read again when asked for."""
        self._key = self._images = None

    @staticmethod
    def _key_of(recipe: Recipe) -> object:
        """Return what decides which images are read; augmentation and sides of views do not."""
        data = replace(recipe.data, augment=AUTO, transforms=AUTO, size=None)
        drawn = bool(data.images or data.labels)
        return data, recipe.task, recipe.training.best, data_seed(recipe) if drawn else None


def read_images(recipe: Recipe, task: Task) -> Images:
    """Read the images of a recipe, each split once.

    `data.validation` holds validation images out of the training split; else they are the source's
    own validation split, if it has one and the recipe chooses on it.

    Raises:
        DataError: They cannot be used, lack what the task needs, or have no label at all.
        RecipeError: A key of `data` does not go with the source or the task.
    """
    _check_choice(recipe)
    whole = train = read_split(recipe, task, "train")
    warn_of_alike(train.classes)
    validation = None
    if recipe.data.validation in (0.0, AUTO):
        validation = _validation(recipe, task, train.classes)
    own_test = _test(recipe, task, train.classes)
    recipe, chosen = _with_share(recipe, whole, validation, own_test)
    spec = recipe.data
    if spec.validation:
        train, validation = _split(recipe, task, train)
    test = _stood_in(own_test, validation)
    for other in (test, validation):
        if other is not None:
            check_classes(other.classes, train.classes, of="training split")
    train = _reduced(recipe, train)
    if task.uses_labels and not train.labelled.any():
        raise DataError(
            f"None of the {len(train)} training images has a label; sort them into one folder per "
            "class, or train without labels by --task none."
        )
    origins = _origins(recipe, whole, train, validation, test)
    labelled, train = train, with_unlabelled(recipe, task, train)
    if train is not labelled:
        more = len(train) - len(labelled)
        origins["train"] += f", and {more:,} without labels in {unlabelled_folder(recipe)}"
    for name, note in warn_of_shared(train, validation, test, spec.source).items():
        origins[name] += f", {note}"
    return Images(train, test, validation, origins, chosen)


def _with_share(
    recipe: Recipe, train: Source, validation: Source | None, test: Source | NoSplit
) -> tuple[Recipe, Choice | None]:
    """Return the recipe with the share that is held out, and what was chosen where it was open."""
    if recipe.data.validation != AUTO:
        return recipe, None
    chosen = held_out(
        recipe,
        len(train),
        len(train.classes),
        validation=validation is not None,
        test=not isinstance(test, NoSplit),
    )
    return replace(recipe, data=replace(recipe.data, validation=chosen.value)), chosen


def read_test_images(recipe: Recipe, task: Task, *, trained_on: str = "") -> Images:
    """Read the images that measure the student of a recipe, and no others if there is a test split.

    Without a test split they are those that `data.validation` holds out, or all of a data set
    without splits, unless the student was trained on them.

    Args:
        recipe: Names the images.
        task: Says what the images have to tell.
        trained_on: Digest of the images that the student was trained on; empty if not known.

    Returns:
        Images of which `test` alone is meant: it stands for the training images as well.

    Raises:
        UnderstudyError: As for `read_images`.
    """
    if recipe.data.validation == AUTO:
        recipe = replace(recipe, data=replace(recipe.data, validation=0.0))
    try:
        test = read_split(recipe, task, "test")
        return Images(test, test, origins=_origins(recipe, test, test, None, test))
    except NoSplit:
        whole = read_split(recipe, task, "train")
        if not recipe.data.validation and whole.split_name:
            raise
    if recipe.data.validation and (parts := _held_out(recipe, task, whole, trained_on)):
        train, held_out = parts
        origins = _origins(recipe, whole, train, held_out, held_out)
        return Images(held_out, held_out, held_out, origins)
    return Images(whole, whole, origins={"test": f"{recipe.data.source}: all, without splits"})


def _held_out(
    recipe: Recipe, task: Task, whole: Source, trained_on: str
) -> tuple[Source, Source] | None:
    """Return the training images that a student was trained on, and those held out meanwhile.

    None if the images are others than it was trained on, and may all measure it.
    """
    # Earlier versions held out by the seed of the data.
    for seed in dict.fromkeys((_SPLIT_SEED, data_seed(recipe))):
        parts = _split(recipe, task, whole, seed=seed)
        if not trained_on or trained_on == _trained(recipe, task, parts[0]).digest:
            return parts
    return _split(recipe, task, whole) if whole.split_name else None


def _reduced(recipe: Recipe, train: Source) -> Source:
    """Return as many training images and labels as the recipe uses."""
    spec = recipe.data
    if spec.images is None and spec.labels is None:
        return train
    return subset.class_balanced(
        train, images=spec.images, labels=spec.labels, seed=data_seed(recipe)
    )


def _trained(recipe: Recipe, task: Task, train: Source) -> Source:
    """Return the images that the student of a recipe is trained on, of its part of the source."""
    return with_unlabelled(recipe, task, _reduced(recipe, train))


def _check_choice(recipe: Recipe) -> None:
    held_out_by_hand = recipe.data.validation not in (0.0, AUTO)
    if recipe.training.best == "test" and held_out_by_hand:
        raise RecipeError(
            "With training.best=test the test images choose the best epoch, so that the images "
            "held out by data.validation have no use: leave one of the two out."
        )


def _validation(recipe: Recipe, task: Task, classes: tuple[str, ...]) -> Source | None:
    """Read the source's own validation split; None if it has none, or none is asked for."""
    module = data.find(recipe.data.source)
    if recipe.training.best == "test" or "validation" not in getattr(module, "SPLITS", ()):
        return None
    try:
        return read_split(recipe, task, "validation", classes=classes)
    except NoSplit:
        return None


def _test(recipe: Recipe, task: Task, classes: tuple[str, ...]) -> Source | NoSplit:
    """Read the test split; return the error where the source has none."""
    try:
        return read_split(recipe, task, "test", classes=classes)
    except NoSplit as missing:
        return missing


def _stood_in(test: Source | NoSplit, validation: Source | None) -> Source:
    """Return the test images, for which the validation images stand in where there are none."""
    if not isinstance(test, NoSplit):
        return test
    if validation is None:
        raise test
    return validation


def _origins(
    recipe: Recipe, whole: Source, train: Source, validation: Source | None, test: Source
) -> dict[str, str]:
    """Return where the images of each split come from.

    Args:
        recipe: Names the source.
        whole: The training split of the source.
        train: What is left of it to train on.
        validation: Validation images, if there are any.
        test: Test images.
    """
    spec = recipe.data
    of_train = f"{spec.source}: {whole.split_name or 'train'}"
    part = "" if len(train) == len(whole) else f", part of its {len(whole):,}"
    held_out = f"held out of {of_train} by data.validation={spec.validation:g}"
    origins = {"train": of_train + part}
    if validation is not None:
        own = f"{spec.source}: {validation.split_name or 'validation'}"
        origins["validation"] = held_out if spec.validation else own
    if test is not validation:
        origins["test"] = f"{spec.source}: {test.split_name or 'test'}"
    return origins


def data_seed(recipe: Recipe) -> int:
    """Return the seed of subsets and augmentation: `data.seed`, or that of the run."""
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def _split(
    recipe: Recipe, task: Task, source: Source, *, seed: int = _SPLIT_SEED
) -> tuple[Source, Source]:
    """Split the training images into a training and a validation part."""
    train, held_back = subset.split(source, recipe.data.validation, seed=seed)
    evaluated = source.for_evaluation() if task.truth == "classes" else source
    if evaluated is source:
        return train, held_back
    # The split goes by the labels of training, in which a difficult object is present.
    return train, Subset(evaluated, held_back.index, evaluated.labels[held_back.index])
