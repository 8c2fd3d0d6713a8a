"""The demonstration: a teacher, a control and some methods on images shipped with Understudy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from understudy.comparison.arms import check_seeds
from understudy.comparison.compare import compare
from understudy.comparison.result import Comparison
from understudy.config.recipe import Recipe
from understudy.errors import NameNotFound, RunError
from understudy.experiment.call import Call, WrittenAtStart
from understudy.experiment.callback import Callback, Callbacks
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
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Comparison:
    """Train a teacher on images shipped with Understudy, then compare methods with a control.

    Args:
        task: `classification` of Fashion-MNIST, or `multilabel` or `detection` of synthetic shapes.
        out: Directory of the comparison; default `runs/demo`, or `runs/demo_<task>`. Finished runs
            in it are kept, with or without `resume`.
        seeds: One run of every arm per seed.
        resume: Continue an interrupted demonstration; refuse if there is none in `out`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        jobs: Runs at once, after the teacher; see `compare`.
        threads: Threads of the CPU for each run; see `compare`.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.

    Returns:
        The comparison; the teacher's run is in its directory under `teacher`.

    Raises:
        NameNotFound: There is no demonstration of that task.
        RecipeError: A seed is none, or named twice.
        RunError: `resume` without a demonstration in `out`, or one of another recipe.

    Example:
        comparison = understudy.demo(seeds=[0], progress=True)
        print(comparison.table())
    """
    if task not in get_args(Demonstrated):
        raise NameNotFound("demonstration", task, sorted(RECIPES))
    check_seeds(seeds)  # before the teacher is trained
    suffix = "" if task == "classification" else f"_{task}"
    root = Path(out) if out else Path("runs") / f"demo{suffix}"
    teacher, (teacher_recipe, student_recipe) = Run(root / "teacher"), RECIPES[task]
    if resume and not teacher.begun:
        raise RunError(f"There is no demonstration in {root} to continue; start without --resume.")
    call = Call("demo", {"task": task, "seeds": list(seeds), "threads": threads})
    beside = [callback] if callback else []
    train(
        teacher_recipe,
        out=teacher.path,
        resume=teacher.begun,
        device=device,
        threads=threads or "auto",
        progress=progress,
        callback=Callbacks(WrittenAtStart(call, root), *beside),
    )
    taught = Recipe.load(student_recipe, {"teacher.weights": str(teacher.path)})
    return compare(
        taught,
        seeds=seeds,
        out=root,
        device=device,
        jobs=jobs,
        threads=threads,
        progress=progress,
        callback=callback,
    )
