"""Build student and teachers of a recipe, for any task."""

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from understudy import files, models
from understudy.config import recipe as recipes
from understudy.config import trust
from understudy.config.image_size import Size, in_words
from understudy.config.recipe import Network, Recipe, key_of
from understudy.config.run_weights import run_of
from understudy.errors import NetworkError, RecipeError
from understudy.experiment import teacher_classes
from understudy.functional import seeded
from understudy.models import detection
from understudy.models.base import Wrapped
from understudy.models.quantised import refuse_student
from understudy.models.weights import class_names
from understudy.tasks import Task

LOGGER = logging.getLogger("understudy")

_Spec = TypeVar("_Spec", bound=Network)

OWN = "own"
"""Weights of a network whose function in a Python file loads them itself."""


def teacher(
    recipe: Recipe, classes: tuple[str, ...], task: Task, *, view_size: Size
) -> Wrapped | None:
    """Build the only teacher of a recipe for data of some classes; None if it names none.

    Args:
        recipe: Names the teacher.
        classes: Class names of the data; none where they are not known.
        task: Says whether it is a detector.
        view_size: Size of the views in pixels, for a network without an input size of its own.

    Raises:
        NetworkError: It has no weights, or cannot be built.
    """
    return teachers(recipe, classes, task, view_size=view_size).get("")


def teachers(
    recipe: Recipe, classes: tuple[str, ...], task: Task, *, view_size: Size
) -> dict[str, Wrapped]:
    """Build the teachers of a recipe; see `teacher`.

    Returns:
        Name → teacher, as in `Recipe.each_teacher`.

    Raises:
        NetworkError: One has no weights, or cannot be built.
    """
    check_teachers(recipe)
    return {
        name: trained(recipe, classes, task, role=key_of(name), view_size=view_size)
        for name in recipe.each_teacher
    }


def trained(
    recipe: Recipe, classes: tuple[str, ...], task: Task, *, role: str, view_size: Size
) -> Wrapped:
    """Build a network of a recipe that is trained already, its classes in the order of the data's.

    Args:
        recipe: Names the network.
        classes: As for `teacher`.
        task: As for `teacher`.
        role: Key of the network in the recipe: `student`, `teacher`, `teachers.dino`.
        view_size: As for `teacher`.

    Raises:
        NetworkError: It cannot be built.
    """
    spec = spec_of(recipe, role)
    trained_for = class_names(Path(spec.weights))
    # Unlabelled images tell of no classes, but a run that trained the teacher does.
    num_classes = len(classes or trained_for) or None

    def build(spec: Network) -> Wrapped:
        with seeded(recipe.seed):
            return _network(
                spec, num_classes, task, role=role, view_size=view_size, classes_from_weights=True
            )

    network, _ = at_its_size(spec, build)
    network.class_names = teacher_classes.names_of(network, spec, trained_for, task, classes)
    if task.uses_labels:
        teacher_classes.put_in_order(network, classes, of=called(role))
    return network


def at_its_size(spec: _Spec, build: Callable[[_Spec], Wrapped]) -> tuple[Wrapped, _Spec]:
    """Build a network, a transformer of timm for its `size` by the option `img_size`.

    Args:
        spec: The network's part of a recipe.
        build: Builds it.

    Returns:
        The network, and its part of the recipe, with that option if it was needed.

    Raises:
        NetworkError: It cannot be built, or not for this size.
    """
    try:
        return build(spec), spec
    except NetworkError as error:
        of_timm = spec.name.startswith(("timm:", "hf-hub:"))
        if not of_timm or spec.size is None or "img_size" in spec.options:
            raise
        size = list(spec.size) if isinstance(spec.size, tuple) else spec.size
        sized = replace(spec, options={**spec.options, "img_size": size})
        try:
            network = build(sized)
        except NetworkError as second:
            if "img_size" in str(second):  # an option that this network does not have
                raise error from second
            raise
        LOGGER.info(
            f"{spec.name} is built for images of {in_words(spec.size)} pixels by timm's option "
            "img_size; weights of positions, if it has any, are resampled."
        )
        return network, sized


def spec_of(recipe: Recipe, role: str) -> recipes.Network:
    """Return the network at a key of a recipe: `student`, `teacher`, `teachers.dino`."""
    if role == "student":
        return recipe.student
    name = role.partition(".")[2]
    return recipe.teachers[name] if name else recipe.teacher


def called(role: str) -> str:
    """Return what messages call the network at a key of a recipe, such as `teacher dino`."""
    return role.replace("teachers.", "teacher ")


def check_teachers(recipe: Recipe) -> None:
    """Refuse methods that would learn from a teacher without weights.

    Raises:
        NetworkError: The recipe names such a teacher, and a method.
    """
    for name, spec in recipe.each_teacher.items():
        untrained = spec.name and not spec.weights and not spec.name.startswith("hf:")
        if untrained and spec.methods:
            raise NetworkError(
                f"The teacher {spec.name} has no weights and would teach noise: give "
                f"--{key_of(name)}.weights, a file, a run directory or 'pretrained', or 'own' for "
                "a function of a Python file that loads the weights itself."
            )


def student(
    spec: recipes.Network,
    num_classes: int | None,
    task: Task,
    *,
    view_size: Size,
    keep_classifier: bool = False,
) -> Wrapped:
    """Build a student.

    Args:
        spec: Its part of a recipe.
        num_classes: How many classes it is to tell apart; None if that is not known.
        task: Says whether it is a detector.
        view_size: As for `teacher`.
        keep_classifier: Refuse weights of another number of classes, instead of a new classifier
            for them.

    Raises:
        NetworkError: It cannot be built.
        RecipeError: The recipe names its classes.
    """
    if spec.classes and not keep_classifier:
        raise RecipeError(
            "student.classes names the classes of a network that is trained already, and a student "
            "takes those of the data: leave it out."
        )
    network = _network(
        spec,
        num_classes,
        task,
        role="student",
        view_size=view_size,
        reset_classifier=not keep_classifier,
    )
    refuse_student(network.module)
    return network


def _network(
    spec: recipes.Network,
    num_classes: int | None,
    task: Task,
    *,
    role: str,
    view_size: Size,
    reset_classifier: bool = False,
    classes_from_weights: bool = False,
) -> Wrapped:
    """Build a network of a recipe.

    A teacher keeps its classes, even if the data have others: some methods do not look at them.
    """
    spec = completed(spec, role)
    _check_run(spec, role, task)
    if task.truth == "objects":
        _check_detector(spec, role)
        return detection.find(
            spec.name,
            num_classes=num_classes,
            weights=spec.weights,
            options=spec.options,
            reset_classifier=reset_classifier,
            classes_from_weights=classes_from_weights,
        )
    return models.find(
        spec.name,
        num_classes=num_classes,
        weights=spec.weights,
        options=spec.options,
        taps=spec.taps,
        # None finds it, and an empty path says that there is none.
        classifier={"": None, "none": ""}.get(spec.classifier, spec.classifier),
        size=spec.size,
        view_size=view_size,
        mean=spec.mean,
        std=spec.std,
        pool=spec.pool,
        reset_classifier=reset_classifier,
        classes_from_weights=classes_from_weights,
    )


def completed(spec: recipes.Network, role: str) -> recipes.Network:
    """Return a network's part of a recipe, completed by the run directory of its weights.

    Raises:
        NetworkError: There are no such weights, or they do not tell the name.
        RecipeError: There is no name.
    """
    if spec.weights == OWN:
        return _with_own_weights(spec, role)
    files.refuse_address(spec.weights, f"{role}.weights")
    if spec.weights not in ("", "pretrained") and not Path(spec.weights).exists():
        raise NetworkError(
            f"There is no file or directory '{spec.weights}' to take the {called(role)}'s "
            f"weights from: correct --{role}.weights."
        )
    if run := run_of(spec.weights):
        stored = Recipe.of_run(run / "recipe.yaml").student
        if spec.name in ("", stored.name):
            spec = _with_keys_of(spec, stored)
    if not spec.name and spec.weights:
        raise NetworkError(
            f"The weights '{spec.weights}' are no run directory and do not tell which network "
            f"they are of: give --{role}.name."
        )
    if not spec.name:
        raise RecipeError(f"The recipe names no {called(role)}: give --{role}.name.")
    return spec


def _with_own_weights(spec: recipes.Network, role: str) -> recipes.Network:
    """Return a network that the function of a Python file builds with its weights.

    Raises:
        RecipeError: It is another network.
    """
    if ".py:" not in spec.name:
        raise RecipeError(
            f"{role}.weights is '{OWN}', which is for a function of a Python file that loads its "
            f"weights itself, but {role}.name is {spec.name!r}: give a file of weights, a run "
            "directory or 'pretrained'."
        )
    return replace(spec, weights="")


def _check_run(spec: recipes.Network, role: str, task: Task) -> None:
    """Refuse weights of a run of detection for another task, and the reverse."""
    run, detects = run_of(spec.weights), task.truth == "objects"
    trained = Recipe.of_run(run / "recipe.yaml").task if run else ""
    if not run or (trained == "detection") == detects:
        return
    kind, other = (
        ("a", "`understudy train --task detection`") if detects else ("no", "another task")
    )
    raise RecipeError(
        f"The {called(role)} is {kind} detector, but {role}.weights {spec.weights} is a run of the "
        f"task {trained}: name a run of {other}."
    )


def _check_detector(spec: recipes.Network, role: str) -> None:
    """Refuse keys that have no meaning for a detector."""
    if spec.pool:
        raise RecipeError(f"A detector pools nothing: leave {role}.pool out.")
    for key in ("taps", "classifier", "size", "mean", "std"):
        if getattr(spec, key):
            raise RecipeError(
                f"A detector takes no {role}.{key}: it is read where its losses look, and "
                "resizes and normalises images by the options min_size, max_size (size for "
                "ssdlite), image_mean and image_std."
            )


def check_trust(recipe: Recipe, stored: Recipe | None = None, folder: Path | None = None) -> None:
    """Refuse to execute a Python file that nobody named but a run directory.

    A run directory that somebody else made may name any file, which building its network imports.
    A file of the working folder is the user's, unless it lies in the run directory itself.

    Args:
        recipe: Networks to be built; its key `trust` allows everything.
        stored: Recipe of the run directory that `recipe` is taken from, if it is: a file that both
            name was not named by the user.
        folder: That directory.

    Raises:
        NetworkError: A run directory names a file, and `trust` is off.
    """
    if recipe.trust:
        return
    for role in ("student", *map(key_of, recipe.each_teacher)):
        spec = spec_of(recipe, role)
        name, place, source = spec.name, folder, ""
        if not name and (run := run_of(spec.weights)):
            name = Recipe.of_run(run / "recipe.yaml").student.name
            place, source = run, spec.weights
        elif stored is not None and _names(stored, role, name):
            source = "the run"
        file = trust.file_of(name) if source else None
        if file is not None and not (place and trust.is_own(file, received=place)):
            raise NetworkError(
                f"The {called(role)} is built by the file {str(file)!r}, which {source} names "
                "and which would be executed, but lies outside the working folder or in the run "
                f"itself: if you know this file, name it yourself by --{role}.name {name}, or "
                "trust the run by --trust true."
            )


def _names(stored: Recipe, role: str, name: str) -> bool:
    """Return True if a recipe names the same network at a key."""
    teacher = role.partition(".")[2]
    return (not teacher or teacher in stored.teachers) and spec_of(stored, role).name == name


def _with_keys_of(spec: recipes.Network, stored: recipes.Network) -> recipes.Network:
    """Return the network that a run stored, with the keys that the recipe sets replaced."""
    overrides = {
        field.name: getattr(spec, field.name)
        for field in fields(recipes.Network)
        if getattr(spec, field.name) not in ("", None, {}, ())
    }
    return replace(stored, **overrides)
