"""Fine-tune distilled students with labels, beside the same student that was not distilled.

The directory holds `finetune.json`, whose form is `FinetuneComparison`, and a comparison directory
for every number of labels. If the distillation is a recipe, not a comparison that is finished, its
comparison lies in `distilled`. All of it may be interrupted and continued.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

from understudy.checks.messages import unrepeated
from understudy.comparison.arms import CONTROL, SEED, check_seeds
from understudy.comparison.compare import compare
from understudy.comparison.place import Place
from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.result import Comparison
from understudy.comparison.several import SeveralComparisons
from understudy.comparison.train_arms import Execution, train_arms
from understudy.config.naming import named
from understudy.config.recipe import Network, Recipe, Student
from understudy.errors import RecipeError, RunError
from understudy.experiment.call import Call
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes

ALL = "all"
"""Number of labels where every image keeps its own."""
DISTILLED = "distilled"
"""Folder of the comparison of a distillation that was given as a recipe."""
PART = "finetune part"
"""Function in the `call.json` of the comparison of one number of labels."""


@final
@dataclass(frozen=True, repr=False)
class FinetuneComparison(SeveralComparisons):
    """Comparisons of fine-tuned students, one for each number of labels, as `finetune` returns."""

    FILE = "finetune.json"
    KEY = "labels"
    COMMAND = "understudy finetune"

    def called(self, part: str) -> str:
        """Return what one part is called in a sentence, such as `10% labels`."""
        return f"{part} labels"


@unrepeated()
def finetune(
    distilled: str | Path | Mapping[str, Any] | Recipe | Comparison,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    labels: Sequence[int | str] = (ALL,),
    methods: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> FinetuneComparison:
    """Fine-tune the students of a comparison with labels, and judge what distilling was worth.

    The control is the student as it was before distilling, at random or with weights of its own,
    trained in the same way with the same labels: what a recipe leaves open is chosen for it, and
    the others take it over. Each number of labels has a control and a verdict of its own; the
    labels that are kept are the same for all arms of a seed.

    Args:
        distilled: A finished comparison, usually of `task: none`, or its directory. Or a recipe of
            one, which is compared first.
        recipe: Recipe of the fine-tuning, without methods; None for the images of `distilled`, and
            all else as chosen by default. Its student is that of `distilled`.
        overrides: Keys of the fine-tuning to replace; see `Recipe.load`.
        labels: How many training images keep their label: a number, a share such as `"10%"`, or
            `"all"`.
        methods: Arms of `distilled` to fine-tune beside its control; default: all of them.
        seeds: Seeds, each the one that its student was distilled with; default: those of
            `distilled`, or of a recipe 0, 1 and 2.
        out: Directory; default `runs/<name of the distillation>_finetuned`.
        resume: Continue what was interrupted; refuse if there is nothing in `out`.
        device: Name of a device; see `compare`.
        jobs: Runs at once; see `compare`.
        threads: Threads of the CPU for each run; see `compare`.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.

    Returns:
        The comparisons, one for each number of labels.

    Raises:
        RecipeError: The fine-tuning has methods or no labels, a number of labels is none, or an arm
            or seed was not distilled.
        RunError: `out` holds something else, or a student is missing.
        UnderstudyError: As for `compare`.

    Example:
        result = understudy.finetune("runs/no_labels", labels=["1%", "10%", "all"])
        print(result.table())
    """
    before, source = _distillation(distilled)
    root = Path(out) if out else Path("runs") / _name(before)
    tuned = _recipe(before, recipe, overrides)
    seeds = seeds or (_seeds(source) if source else (0, 1, 2))
    check_seeds(seeds)
    images = ImagesOfRecipes()
    counts = _counts(labels, len(images(replace(tuned, seed=seeds[0])).train))
    folders = {name: f"labels_{name}" for name in counts}
    FinetuneComparison.check_place(root, folders, resume=resume)
    students = _students(source, methods, seeds) if source else {}
    how = Execution(device, jobs, threads, progress, callback)
    arguments = {
        "distilled": str(Path(source)) if source else before.to_dict(),
        "recipe": tuned.to_dict(),
        "labels": list(labels),
        "methods": list(methods),
        "seeds": list(seeds),
        "threads": threads,
    }
    Call("finetune", arguments).write(root)
    if source is None:
        students = _students(_compared(before, root, methods, seeds, how), methods, seeds)
    done = {
        name: train_arms(
            replace(
                tuned, name=f"{tuned.name} {name} labels", data=replace(tuned.data, labels=count)
            ),
            # All take what is chosen for the control, so that it has the rate that suits it best.
            partial(_arms, students=students),
            Place(root / folders[name], PART),
            {"of": str(root)},
            seeds=seeds,
            bank=root / folders[name] / "bank",
            resume=False,
            how=how,
            images=images,
        )
        for name, count in counts.items()
    }
    metric = next(iter(done.values())).metric
    result = FinetuneComparison(tuned.name, metric, folders, root)
    result.write()
    return result


def _distillation(
    distilled: str | Path | Mapping[str, Any] | Recipe | Comparison,
) -> tuple[Recipe, Comparison | None]:
    """Return the recipe of a distillation, and its comparison if there is one.

    Raises:
        RunError: The directory holds no comparison that is finished.
    """
    if isinstance(distilled, Comparison) or (
        isinstance(distilled, str | Path) and Path(distilled).is_dir()
    ):
        folder = Path(distilled)
        if not (folder / COMPARISON).is_file():
            raise RunError(
                f"{folder} holds no finished comparison: name the directory of `understudy compare "
                "--task none`, or a recipe that is compared first. To fine-tune the student of one "
                f"run alone: understudy train --student.weights {folder}."
            )
        source = Comparison.load(folder)
        called = Place(folder).called() or source.runs(CONTROL)[0].recipe
        return named(called, "comparison"), source
    return named(Recipe.load(distilled), "comparison"), None


def _name(before: Recipe) -> str:
    return f"{before.name.removesuffix('_compared')}_finetuned"


def _recipe(
    before: Recipe,
    recipe: str | Path | Mapping[str, Any] | Recipe | None,
    overrides: Mapping[str, Any] | None,
) -> Recipe:
    """Return the recipe of the fine-tuning.

    Raises:
        RecipeError: It has methods, or no labels.
    """
    task = "classification" if before.task == "none" else before.task
    base = Recipe(task=task, data=before.data) if recipe is None else recipe
    tuned = Recipe.load(base, overrides)
    if tuned.each_method:
        raise RecipeError(
            f"The fine-tuning has the methods {', '.join(tuned.each_method)}, but it learns from "
            "labels alone: leave them out, or compare with --student.weights."
        )
    if tuned.task == "none":
        raise RecipeError("Fine-tuning needs labels, but its task is none: name another --task.")
    if _named(tuned.student) not in (Student(), before.student):
        raise RecipeError(
            "Fine-tuning goes on with the distilled students: leave the keys of student out."
        )
    name = tuned.name or _name(before)
    return replace(tuned.with_teacher(Network()), name=name, student=before.student)


def _named(student: Student) -> Student:
    """Return a student without the `size: null` of `base: _papers`, which names no size."""
    return replace(student, size=Student().size) if student.size is None else student


def _counts(labels: Sequence[int | str], images: int) -> dict[str, int | None]:
    """Return name → number of labels, None for all, as they are asked for.

    Raises:
        RecipeError: One of them is none.
    """
    if not labels:
        raise RecipeError("Name how many labels to fine-tune with, such as --labels 1% 10% all.")
    counts = dict[str, int | None]()
    for each in map(str, labels):
        count = _count(each, images)
        if count is not None and not 0 < count <= images:
            raise RecipeError(
                f"--labels {each} is not between 1 and the {images:,} training images."
            )
        counts[ALL if count in (None, images) else str(count)] = None if count == images else count
    return counts


def _count(text: str, images: int) -> int | None:
    if text == ALL:
        return None
    try:
        if text.endswith("%"):
            return round(float(text[:-1]) / 100 * images)
        return int(text)
    except ValueError:
        raise RecipeError(
            f"--labels takes numbers, shares and '{ALL}', such as 500 10% {ALL}, not {text!r}."
        ) from None


def _compared(
    before: Recipe, root: Path, methods: Sequence[str], seeds: Sequence[int], how: Execution
) -> Comparison:
    """Compare the methods of the distillation, in a folder of the directory."""
    return compare(
        before,
        methods=methods,
        seeds=seeds,
        out=root / DISTILLED,
        device=how.device,
        jobs=how.jobs,
        threads=how.threads,
        progress=how.progress,
        callback=how.callback,
    )


def _arms(recipe: Recipe, students: Mapping[str, str]) -> dict[str, Recipe]:
    """Return the control, and an arm for the students of each method."""
    return {CONTROL: recipe} | {
        name: replace(recipe, student=Student(weights=path)) for name, path in students.items()
    }


def _seeds(source: Comparison) -> list[int]:
    return list(source.arms[0]["seeds"])


def _students(source: Comparison, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """Return method → path of its distilled students, in which `{seed}` stands for the seed.

    Raises:
        RecipeError: An arm or a seed was not distilled.
    """
    root = Path(source)
    names = [arm["name"] for arm in source.arms]
    if unknown := [name for name in methods if name not in names]:
        raise RecipeError(
            f"{root} has no arm {', '.join(unknown)} to fine-tune; it has {', '.join(names)}."
        )
    arms = list(methods) or [name for name in names if name != CONTROL]
    for arm in arms:
        distilled = {run.path.name for run in source.runs(arm)}
        if missing := [seed for seed in seeds if f"seed{seed}" not in distilled]:
            raise RecipeError(
                f"{root} has no finished student of the arm {arm} with seed "
                f"{', '.join(map(str, missing))}: finish that comparison, or name other --seeds "
                "or --methods."
            )
    return {arm: str(root / arm / f"seed{SEED}") for arm in arms}
