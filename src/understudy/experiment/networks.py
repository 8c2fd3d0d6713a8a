"""From the names of networks in a recipe to networks: student and teacher of any task."""

import json
from dataclasses import fields, replace
from pathlib import Path

from safetensors import safe_open

from understudy import models
from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.data.class_names import check as check_classes
from understudy.errors import NetworkError, RecipeError
from understudy.functional import seeded
from understudy.models import detection
from understudy.models.base import Wrapped
from understudy.tasks import Task


def teacher(recipe: Recipe, classes: tuple[str, ...], task: Task, *, shown: int) -> Wrapped | None:
    """The teacher of a recipe, if it names one, for data of some classes.

    Raises:
        NetworkError: It has no weights and would teach noise, or cannot be built.
        DataError: It was trained for other classes.
    """
    if not (recipe.teacher.name or recipe.teacher.weights):
        return None
    bare = not recipe.teacher.weights and not recipe.teacher.name.startswith("hf:")
    if bare and recipe.methods:
        raise NetworkError(
            f"The teacher {recipe.teacher.name} has no weights and would teach noise: give "
            "--teacher.weights, a file, a run directory or 'pretrained'."
        )
    taught = classes_of(Path(recipe.teacher.weights))
    if recipe.teacher.weights == "pretrained" and task.truth == "objects":
        taught = detection.COCO_CLASSES
    with seeded(recipe.seed):
        # Unlabelled images tell of no classes, but a run that trained the teacher does.
        known = len(classes or taught) or None
        found = network(recipe.teacher, known, "teacher", task=task, shown=shown)
    if len(classes) == found.num_classes:
        check_classes(classes, taught)
    return found


def network(
    wanted: recipe.Network,
    num_classes: int | None,
    role: str,
    *,
    task: Task,
    shown: int,
    exact: bool = False,
) -> Wrapped:
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
        wanted = _completed(wanted, Recipe.load(made_by).student)
    if not wanted.name and wanted.weights:
        raise NetworkError(
            f"The weights '{wanted.weights}' are no run directory and do not tell which network "
            f"they are of: give --{role}.name."
        )
    if not wanted.name:
        raise RecipeError(f"The recipe names no {role}: give --{role}.name.")
    reset_classifier = role == "student" and not exact
    if task.truth == "objects":
        _check_detector(wanted, role)
        return detection.find(
            wanted.name,
            num_classes=num_classes,
            weights=wanted.weights,
            options=wanted.options,
            reset_classifier=reset_classifier,
            classes_from_weights=role == "teacher",
        )
    return models.find(
        wanted.name,
        num_classes=num_classes,
        weights=wanted.weights,
        options=wanted.options,
        taps=wanted.taps,
        size=wanted.size,
        view_size=shown,
        mean=wanted.mean,
        std=wanted.std,
        pool=wanted.pool,
        reset_classifier=reset_classifier,
        classes_from_weights=role == "teacher",
    )


def _check_detector(wanted: recipe.Network, role: str) -> None:
    """Refuse keys that mean nothing to a detector."""
    if wanted.pool:
        raise RecipeError(f"A detector pools nothing: leave {role}.pool out.")
    for key in ("taps", "size", "mean", "std"):
        if getattr(wanted, key):
            raise RecipeError(
                f"A detector takes no {role}.{key}: it is read where its losses look, and "
                "resizes and normalises images by the options min_size, max_size (size for "
                "ssdlite), image_mean and image_std."
            )


def _completed(wanted: recipe.Network, stored: recipe.Network) -> recipe.Network:
    """A network as a run was made with it, where nothing else is asked for."""
    asked = {
        f.name: getattr(wanted, f.name)
        for f in fields(recipe.Network)
        if getattr(wanted, f.name) not in ("", None, {})
    }
    return replace(stored, **asked)


def classes_of(weights: Path) -> tuple[str, ...]:
    """The class names that a run directory or a student's file records; none for other weights."""
    path = weights / "student.safetensors" if weights.name and weights.is_dir() else weights
    if path.suffix != ".safetensors" or not path.is_file():
        return ()
    with safe_open(path, framework="pt") as file:
        return tuple(json.loads((file.metadata() or {}).get("classes", "[]")))
