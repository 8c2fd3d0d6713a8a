"""The demonstration: a teacher, a control and some methods on images that come with Understudy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from understudy.config.recipe import Recipe
from understudy.errors import NameNotFound
from understudy.experiment.callback import Callback
from understudy.experiment.compare import compare
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

Demonstrated = Literal["classification", "multilabel", "detection"]
"""Tasks that have a demonstration."""

RECIPES: dict[str, tuple[str, str]] = {
    "classification": ("fashion/teacher", "fashion/demo"),
    "multilabel": ("shapes/multilabel_teacher", "shapes/multilabel"),
    "detection": ("shapes/detection_teacher", "shapes/detection"),
}
"""Recipes of the teacher and of its students for each task."""


def demo(
    *,
    task: Demonstrated = "classification",
    out: str | Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str | None = None,
    callback: Callback | None = None,
) -> Path:
    """Train the teacher of a task by its recipe in `RECIPES`, then compare students by the other.

    Args:
        task: What is learned: of clothes one class an image, of drawn shapes all or their boxes.
        out: Directory of the comparison; default `runs/demo`, or `runs/demo_<task>`.
        seeds: One run of every arm for each.
        device: As for `train`.
        callback: Told about the progress of every run.

    Returns:
        The comparison's directory; whatever is finished in it already is not run again.

    Raises:
        NameNotFound: There is no demonstration of that task.
    """
    if task not in get_args(Demonstrated):
        raise NameNotFound("demonstration", task, sorted(RECIPES))
    suffix = "" if task == "classification" else f"_{task}"
    root = Path(out) if out else Path("runs") / f"demo{suffix}"
    place, (teaching, learning) = Run(root / "teacher"), RECIPES[task]
    teacher = train(
        Recipe.load(teaching), out=place.path, resume=place.begun, device=device, callback=callback
    )
    wanted = Recipe.load(learning)
    wanted = replace(wanted, teacher=replace(wanted.teacher, weights=str(teacher.path)))
    compare(wanted, seeds=seeds, out=root, device=device, callback=callback)
    return root
