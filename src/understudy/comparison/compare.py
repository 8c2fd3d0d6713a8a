"""Compare methods with a control under one budget over several seeds, with a verdict for each.

All arms have the same teachers. Their outputs are stored in `bank`, by whichever run first meets a
view, and read by all others, unless the recipe names a bank of its own. See `train_arms` for the
directory of a comparison.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from understudy.comparison.arms import named as arms_named
from understudy.comparison.place import Place
from understudy.comparison.result import Comparison
from understudy.comparison.train_arms import Execution, train_arms
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.own_images import given


def compare(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    bank: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    images: ImagesOfRecipes | None = None,
) -> Comparison:
    """Run a control and every arm over every seed, and judge each arm against the control.

    Without a `bank.path` in the recipe, arms whose methods read what `bank.features` names share a
    bank in the comparison directory, if half of the free disk holds it. Its runs are the same to
    the bit as without one.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`. The
            hyper-parameters of its methods are used wherever an arm names them.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        data: Images of a program, as for `train`; the runs are then trained in turn.
        methods: Arms: a method's name or label, or several joined by `+`; default: the recipe's
            methods, each by itself. Of a recipe with `teachers`: the name of a teacher, which
            stands for all its methods, or several; default: all together, and each alone.
        seeds: One run of every arm per seed; three or more give an interval.
        out: Comparison directory; default `runs/<recipe.name>`, or of a recipe without a name
            `runs/<student>_from_<teacher>_compared`. Finished runs in it are kept and interrupted
            ones continued, with or without `resume`.
        bank: Folder of the bank that the arms share; default: `bank` in the comparison directory.
        resume: Continue an interrupted comparison; refuse if there is none in `out`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        jobs: Runs at once. With more than one, each is trained in a process of its own, one on
            every GPU or several, and `callback` is told of `series`, `epoch` and `end` alone. None,
            the default of the command line: one for every GPU, or for every two cores if the
            student is small. The result does not depend on it: on a CPU, not in a single bit.
        threads: Threads of the CPU for each run; default: one if the student is small, otherwise
            one for every core, unless `OMP_NUM_THREADS` is set.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.
        images: Has read images of the recipe already; used where one process trains.

    Returns:
        The measurements and verdicts, which `comparison.json` in the directory holds too. Runs that
        failed are listed under `failed` of their arm.

    Raises:
        RecipeError: The recipe is wrong, or there is no method, no teacher, or no seed.
        RunError: The directory holds another comparison, runs on other images, or with `resume`
            nothing to continue.
        Unfinished: A run of the control failed, so that no arm can be judged.
        UnderstudyError: An arm cannot be built, which is found before any is trained.
        Diverged: The control did.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.

    Example:
        teacher = {"teacher.weights": "runs/teacher"}
        comparison = understudy.compare("fashion/demo", teacher, methods=["kd", "lshfm", "kd+nd"])
        print(comparison.table())
    """
    jobs = at_once(jobs, data)
    with given(Recipe.load(recipe, overrides), data) as prepared:
        recipe = named(prepared, "comparison")
        _check_complete(recipe)
        root = Path(out) if out else Path("runs") / recipe.name
        arguments = {
            "methods": list(methods),
            "seeds": list(seeds),
            "bank": None if bank is None else str(bank),
            "threads": threads,
        }
        return train_arms(
            recipe,
            partial(arms_named, names=methods),
            Place(root),
            arguments,
            seeds=seeds,
            bank=Path(bank) if bank else root / "bank",
            resume=resume,
            how=Execution(device, jobs, threads, progress, callback),
            images=images,
        )


def at_once(jobs: int | None, data: Any) -> int | None:
    """Return how many runs may be trained at once: one, if only this process has their images.

    Raises:
        RecipeError: More of those are asked for.
    """
    if data is None:
        return jobs
    if jobs not in (None, 1):
        raise RecipeError(
            f"The images of data= are in this process alone, so that its runs are trained in turn: "
            f"leave jobs={jobs} out, or write the images into folders for data.source=folder."
        )
    return 1


def _check_complete(recipe: Recipe) -> None:
    if not recipe.each_teacher:
        raise RecipeError("A comparison needs a teacher: give --teacher.name or a recipe with one.")
