"""Names of experiments after what they are, such as `resnet18_from_resnet50_lshfm`. No torch."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import yaml

from understudy.config.recipe import Network, Recipe, teacher_and_method
from understudy.config.run_weights import run_of
from understudy.config.yaml_text import from_yaml

_LONGEST = 120
"""Characters of a name that nobody chose."""

_ENDINGS: dict[str, str] = {"run": "", "comparison": "_compared", "search": "_tuned"}
"""What a name ends in, so that no two commands take the same default directory."""


def named(recipe: Recipe, kind: Literal["run", "comparison", "search"] = "run") -> Recipe:
    """Return a recipe with a name: its own, or one of its student, teacher and methods.

    Args:
        recipe: Any recipe.
        kind: What is done with it. Only a run has its methods in its name: a comparison or a search
            may be extended by others.

    >>> named(Recipe(student=Network("resnet8"), name="mine")).name
    'mine'
    >>> both = {"student": Network("timm:resnet18.a1_in1k"), "teacher": Network("resnet50")}
    >>> named(Recipe(**both, methods={"kd": {}, "lshfm": {}})).name
    'resnet18_from_resnet50_kd+lshfm'
    >>> named(Recipe(**both), "comparison").name
    'resnet18_from_resnet50_compared'
    """
    if recipe.name:
        return recipe
    name, methods = _plain_name(recipe.student) or "student", kind == "run" and recipe.each_method
    # A control may name a teacher, and learns nothing from it.
    if recipe.each_teacher and (methods or kind != "run"):
        # Of several the recipe's own names are short, and those of the networks long.
        teachers = "+".join(recipe.teachers) or _plain_name(recipe.teacher) or "teacher"
        name += f"_from_{teachers}"
    if methods:
        own = dict.fromkeys(teacher_and_method(label)[1] for label in methods)
        name += f"_{'+'.join(map(_letters, own))}"
    return replace(recipe, name=f"{name[:_LONGEST]}{_ENDINGS[kind]}")


def _plain_name(network: Network) -> str:
    """Return the name of a network without library, owner, folder, suffix and tag of weights."""
    name = str(network.options.get("backbone", "") or network.name)
    if not name and network.weights:
        name = _student_of(network.weights) or Path(network.weights).stem
    file, _, factory = name.rpartition(":")
    name = factory if file.endswith(".py") else name.rpartition(":")[2].rpartition("/")[2]
    return _letters(name.partition(".")[0])


def _student_of(weights: str) -> str:
    """Return the name of the student that a run trained; empty if the weights are of no run."""
    run = run_of(weights)
    if run is None:
        return ""
    try:
        content = from_yaml((run / "recipe.yaml").read_text(encoding="utf-8"))
        return str(content["student"]["name"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""


def _letters(text: str) -> str:
    """Return a text with nothing but what every file system takes in a name."""
    return re.sub(r"[^\w+-]+", "-", text).strip("-")
