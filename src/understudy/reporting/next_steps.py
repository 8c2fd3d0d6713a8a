"""Commands that come after a report: use the student, export it, measure it, and what helps."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from understudy.comparison.arms import CONTROL
from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.result import Comparison, known_values, seed_of
from understudy.comparison.several import SeveralComparisons
from understudy.comparison.students import StudentComparison
from understudy.config.trust import file_of
from understudy.experiment import extension
from understudy.experiment.call import call_of
from understudy.experiment.own_images import SOURCE
from understudy.experiment.run_directory import Run
from understudy.experiment.student_file.config import FILE as CONFIG
from understudy.reporting.cautions import longer_if_near_chance
from understudy.reporting.collect import read, several_in
from understudy.reporting.columns import name
from understudy.tuning import result as tuning

MORE_SEEDS = 2
"""Seeds that are proposed in addition."""


@dataclass(frozen=True)
class Step:
    """One command, and what it is for."""

    purpose: str
    command: str


def next_steps(paths: Sequence[Path]) -> list[Step]:
    """Return the commands for the directories of a report; they work from any folder.

    Raises:
        RunError: A directory is damaged.
    """
    folder = paths[0].absolute()
    if len(paths) > 1:
        return list(_of_runs([Run(path.absolute()) for path in paths]))
    if several := several_in(folder):
        return list(_of_several(several))
    if (folder / tuning.FILE).is_file():
        return list(_of_search(folder))
    if (folder / COMPARISON).is_file():
        return list(_of_comparison(Comparison.load(folder)))
    return list(_of_run(Run(folder))) if (folder / "recipe.yaml").is_file() else []


def student_to_use(comparison: Comparison) -> tuple[str, Run] | None:
    """Return the arm and the run whose student is worth using; None if no run has ended.

    It is the method of the highest mean, or the control where that has a higher one.
    """
    sign = -1 if comparison.metric == "loss" else 1
    best = comparison.best
    for arm in comparison.arms if best else ():
        own = {Path(comparison) / path for path in arm["runs"]}
        if best and best.path in own and sign * (arm["verdict"]["difference"] or 0.0) > 0:
            return arm["name"], best
    finished = [run for run in comparison.runs(CONTROL) if run.finished]
    return (CONTROL, finished[0]) if finished else None


def _of_run(run: Run) -> Iterator[Step]:
    if not run.finished:
        yield Step("Train it to its end", _command("--resume", run.path))
        return
    yield from _use(run, "its student")
    recipe = run.recipe
    if recipe.data.source == SOURCE or extension.compared(run):
        return
    if recipe.each_method and longer_if_near_chance(read([run.path])) is None:
        out = run.path.with_name(f"{run.path.name}_compared")
        yield Step(
            "Know what the teacher gave: the same student with and without it, over three seeds",
            _command("compare", run.path / "recipe.yaml", "--seeds", 0, 1, 2, "--out", out),
        )
    if len(run.history) == recipe.training.epochs:
        yield Step(
            "Train it longer",
            _command("--resume", run.path, "--extend", recipe.training.epochs),
        )


def _of_runs(runs: Sequence[Run]) -> Iterator[Step]:
    for run in runs:
        if run.finished:
            yield _try(run, f"the student of {run.path.name}")


def _of_comparison(comparison: Comparison) -> Iterator[Step]:
    if chosen := student_to_use(comparison):
        arm, run = chosen
        yield from _use(run, f"the student of {arm} with seed {seed_of(run.path)}")
    yield from _next(Path(comparison), [comparison], comparison.arms[0]["seeds"])


def _of_several(several: SeveralComparisons) -> Iterator[Step]:
    comparisons = {part: several.comparison(part) for part in several.folders}
    chosen = {part: x for part, one in comparisons.items() if (x := student_to_use(one))}
    if chosen:
        metric = several.metric
        values = {part: _mean(comparisons[part], chosen[part][0], metric) for part in chosen}
        part = max(values, key=lambda one: -values[one] if metric == "loss" else values[one])
        arm, run = chosen[part]
        called = several.called(part)
        yield from _use(run, f"the student with the best {name(metric)} ({called}, {arm})")
    if isinstance(several, StudentComparison):
        seeds = [seed for one in comparisons.values() for seed in one.arms[0]["seeds"]]
        yield from _next(several.path, list(comparisons.values()), sorted(set(seeds)))


def _of_search(folder: Path) -> Iterator[Step]:
    if (folder / tuning.TUNED).is_file():
        yield Step("Train with what was chosen", _command("distill", folder / tuning.TUNED))
    judged = folder / tuning.JUDGED
    if (judged / COMPARISON).is_file() and (chosen := student_to_use(Comparison.load(judged))):
        yield from _use(chosen[1], f"the student of {chosen[0]}")


def _mean(comparison: Comparison, arm: str, metric: str) -> float:
    row = next(one for one in comparison.arms if one["name"] == arm)
    values = known_values(row, metric)
    return mean(values) if values else float("-inf")


def _use(run: Run, what: str) -> Iterator[Step]:
    """Yield the commands that use a finished student."""
    yield _try(run, what)
    trust = _trust(run)
    yield Step(
        "Write it as ONNX, checked on test images, with size and latency",
        _command("export", run.path, *trust),
    )
    if run.recipe.data.source != SOURCE:
        yield Step(
            "Measure it again, or on other labelled images by --data.root FOLDER",
            _command("evaluate", run.path, *trust),
        )


def _try(run: Run, what: str) -> Step:
    """Return the command that shows what a finished student computes."""
    if (run.path / CONFIG).is_file() and not run.config.predicts:
        command = _command("probe", run.path, *_trust(run))
        return Step(f"Measure the features of {what} by k-NN and a linear probe", command)
    trust = _trust(run)[:1]  # of `predict` the flag has no value
    return Step(f"Try {what} on pictures", _command("predict", run.path, _pictures(run), *trust))


def _trust(run: Run) -> list[str]:
    """Return the flag that lets a user's own file be executed, if the student needs one."""
    return ["--trust", "true"] if file_of(run.recipe.student.name) else []


def _pictures(run: Run) -> Path:
    """Return the test pictures of a run if they are files in a folder; else a name to replace."""
    data = run.recipe.data
    root = Path(data.root)
    if data.source != "folder" or not root.is_dir():
        return Path("PICTURE_OR_FOLDER")
    # Whatever the folder is called, such as `valid` or `Test`; of none, all images of the root.
    origin = (run.splits.get("test") or {}).get("origin") or ""
    place = root / origin.removeprefix(f"{data.source}: ")
    return (place if place.is_dir() else root).absolute()


def _next(folder: Path, comparisons: Sequence[Comparison], seeds: Sequence[int]) -> Iterator[Step]:
    """Yield what helps next: the doctor where all students are near chance, else more seeds."""
    longer = [longer_if_near_chance(read([Path(one)])) for one in comparisons]
    if not longer or None in longer:
        yield from _more_seeds(folder, seeds)
        return
    epochs = max((fix["training.epochs"] for fix in longer if fix), default=None)
    again = f" Compare again with --training.epochs {epochs} and another --out," if epochs else ""
    for run in [*_taught(comparisons)][:1]:
        yield Step(
            f"All students are near chance, where more seeds show nothing.{again}"
            f"{' and look' if again else ' Look'} for what else is amiss",
            _command("doctor", run.path / "recipe.yaml", *_trust(run)),
        )


def _taught(comparisons: Sequence[Comparison]) -> Iterator[Run]:
    """Yield the runs of comparisons that have a method, and images that are still at hand."""
    for comparison in comparisons:
        for arm in comparison.arms:
            for run in comparison.runs(arm["name"]):
                if run.recipe.each_method and run.recipe.data.source != SOURCE:
                    yield run


def _more_seeds(folder: Path, seeds: Sequence[int]) -> Iterator[Step]:
    """Yield the command that adds seeds to a comparison, where it can be continued by itself."""
    call = call_of(folder)
    recipe = call.arguments.get("recipe") if call else None
    if call is None or "of" in call.arguments:
        return
    if isinstance(recipe, dict) and (recipe.get("data") or {}).get("source") == SOURCE:
        return
    fresh = [seed for seed in range(max(seeds) + MORE_SEEDS + 1) if seed not in seeds]
    yield Step(
        f"Train {MORE_SEEDS} more seeds of every arm: shorter intervals",
        _command("--resume", folder, "--seeds", *seeds, *fresh[:MORE_SEEDS]),
    )


def _command(*words: object) -> str:
    return shlex.join(["understudy", *map(str, words)])
