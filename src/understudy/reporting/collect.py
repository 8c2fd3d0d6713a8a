"""Read comparison and run directories into the content of a report."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy import tasks
from understudy.comparison.finetune import FinetuneComparison
from understudy.comparison.result import read_comparison, seed_of, values_of
from understudy.comparison.several import SeveralComparisons
from understudy.comparison.students import StudentComparison
from understudy.errors import RunError
from understudy.experiment import splits
from understudy.experiment.run_directory import Run, read_json
from understudy.experiment.run_forms import ENVIRONMENT
from understudy.reporting.results import METHOD_INKS, Arm, Numbers, Results, duration


def read(paths: Sequence[Path]) -> Results:
    """Return the results of one comparison directory, or of one or several run directories.

    Raises:
        RunError: A directory is missing or damaged, or comparisons and runs are mixed.
    """
    if not paths:
        raise RunError(
            "There is nothing to report on: name a comparison directory or run directories."
        )
    comparisons = [path for path in paths if (path / "comparison.json").is_file()]
    if not comparisons:
        return of_runs([Run.open(path) for path in paths])
    if len(paths) > 1:
        raise RunError(
            f"A report shows one comparison or several runs, but the comparison {comparisons[0]} "
            f"is one of {len(paths)} directories; report on each comparison separately."
        )
    return of_comparison(read_comparison(paths[0]), root=paths[0])


def several_in(folder: Path) -> SeveralComparisons | None:
    """Return the comparisons of several students, or of fine-tuning, in a directory, if it has any.

    Raises:
        RunError: They are damaged.
    """
    kinds: tuple[type[SeveralComparisons], ...] = (StudentComparison, FinetuneComparison)
    return next((kind.load(folder) for kind in kinds if (folder / kind.FILE).is_file()), None)


def of_comparison(content: Mapping[str, Any], *, root: Path | None = None) -> Results:
    """Return the results of a `comparison.json`; for charts, also read the runs below `root`.

    Raises:
        RunError: An entry or a run is missing.
    """
    try:
        return _of_comparison(content, root)
    except KeyError as error:
        raise RunError(
            f"The comparison has no entry {error}: it is damaged, or from another version of "
            "Understudy. Run the comparison again."
        ) from error


def _of_comparison(content: Mapping[str, Any], root: Path | None) -> Results:
    runs = {
        row["name"]: [Run.open(root / path) for path in row["runs"]] if root else []
        for row in content["arms"]
    }
    teacher, rows = content["teacher"], content["arms"]
    names = [row["name"] for row in rows if row["verdict"]]
    arms = _rows_of_teachers(content)
    metric = content["metric"]
    arms += [_arm(row, names, runs[row["name"]], _by_seed(row, metric)) for row in rows]
    seeds = ", ".join(map(str, rows[0]["seeds"]))
    facts = {
        "task": content["task"],
        "teacher": _named_teachers(content) or (teacher["name"] if teacher else "none"),
        "seeds": seeds,
        "recipe digest": content["recipe_digest"],
        "machine": content["machine"],
        "created": content["created"],
        "time of all runs": duration(content["seconds"]),
    }
    every_run = [run for group in runs.values() for run in group]
    facts |= _splits(every_run) | _versions(every_run)
    return Results(content["name"], content["metric"], content["classes"], arms, facts)


def _rows_of_teachers(content: Mapping[str, Any]) -> list[Arm]:
    """Return a row for the teacher, or for each teacher that the recipe calls by a name."""
    named = content.get("teachers") or {}
    if not named:
        return [_teacher(content["teacher"])] if content.get("teacher") else []
    return [_teacher(teacher, f"teacher {name}") for name, teacher in named.items()]


def _named_teachers(content: Mapping[str, Any]) -> str:
    named = content.get("teachers") or {}
    return ", ".join(f"{name}: {teacher['name']}" for name, teacher in named.items())


def _teacher(content: Mapping[str, Any], name: str = "teacher") -> Arm:
    return Arm(
        name,
        "teacher",
        "teacher",
        metrics={key: [value] for key, value in content["metrics"].items() if value is not None},
        per_class=[content["per_class"]] if content.get("per_class") else [],
        seconds=[content["seconds"]] if content.get("seconds") else [],
        parameters=content["parameters"],
    )


def _by_seed(row: Mapping[str, Any], metric: str) -> dict[int, float]:
    """Return the metric of an arm for every seed that has one; of a failed arm any may lack it."""
    pairs = zip(map(seed_of, row["runs"]), values_of(row, metric), strict=True)
    return {seed: x for seed, x in pairs if x is not None and math.isfinite(x)}


def _arm(
    row: Mapping[str, Any], methods: Sequence[str], runs: list[Run], by_seed: dict[int, float]
) -> Arm:
    number = methods.index(row["name"]) if row["verdict"] else None
    cost = row["cost"]
    return Arm(
        row["name"],
        "control" if number is None else "method",
        "control" if number is None else f"c{number % METHOD_INKS}",
        dash=0 if number is None else number // METHOD_INKS,
        metrics={key: _present(values) for key, values in row["metrics"].items()},
        by_seed=by_seed,
        per_class=[seed for seed in row["per_class"] or [] if seed],
        fidelity={key: _present(values) for key, values in (row["fidelity"] or {}).items()},
        seconds=_present(cost["seconds"]),
        memory_mb=_present(cost["memory_mb"]),
        parameters=cost["parameters"],
        train_parameters=cost["train_parameters"],
        methods=row["methods"],
        verdict=row["verdict"],
        runs=runs,
    )


def of_runs(runs: Sequence[Run]) -> Results:
    """Return the results of single runs, without a verdict."""
    students = [_single(run, name, number) for number, (run, name) in enumerate(_named(runs))]
    arms = _shared_teacher(runs) + students
    measured = next(
        (arm.metrics or arm.fidelity for arm in students if arm.metrics or arm.fidelity), {}
    )
    headlines = [tasks.find(task).headline for task in tasks.names()]
    metric = next((key for key in (*headlines, *measured) if measured.get(key)), headlines[0])
    machines = {str(e["machine"]) for e in map(_environment, runs) if "machine" in e}
    facts = {"machine": ", ".join(sorted(machines))} if machines else {}
    title = ", ".join(arm.name for arm in students)
    classes = [_evaluation(run).get("classes") or [] for run in runs]
    same = all(names == classes[0] for names in classes)
    facts |= _splits(runs) | _versions(runs)
    return Results(title, metric, classes[0] if same else [], arms, facts)


def _shared_teacher(runs: Sequence[Run]) -> list[Arm]:
    """Return the rows of the teachers, if all runs that are finished had the same."""
    kept = ("teacher", "teachers")
    every = [{key: _evaluation(run).get(key) for key in kept} for run in runs if run.finished]
    if not every or any(teachers != every[0] for teachers in every):
        return []
    return [arm for arm in _rows_of_teachers(every[0]) if arm.metrics]


def _evaluation(run: Run) -> dict[str, Any]:
    """Return the evaluation of a run; empty if it is not finished."""
    return run.evaluation if run.finished else {}


def _single(run: Run, name: str, number: int) -> Arm:
    done = _evaluation(run)
    evaluated: dict[str, Any] = next(
        (e for e in reversed(run.history) if e.get("metrics") or e.get("fidelity")), {}
    )
    metrics = done.get("metrics") or evaluated.get("metrics") or {}
    fidelity = done.get("fidelity") or evaluated.get("fidelity") or {}
    seconds = done.get("seconds", sum(epoch.get("seconds", 0.0) for epoch in run.history))
    return Arm(
        name,
        "run",
        f"c{number % METHOD_INKS}",
        dash=number // METHOD_INKS,
        metrics={key: _present([value]) for key, value in metrics.items()},
        per_class=[seed for seed in [done.get("per_class")] if seed],
        fidelity={key: _present([value]) for key, value in fidelity.items()},
        seconds=_present([seconds]),
        memory_mb=_present([done.get("memory_mb")]),
        parameters=done.get("parameters"),
        train_parameters=done.get("train_parameters"),
        runs=[run],
    )


def _named(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Return each run with the end of its path that distinguishes it from the others."""
    paths = [run.path.resolve() for run in runs]
    root = Path(os.path.commonpath(paths)) if len(set(paths)) > 1 else paths[0].parent
    return [(run, str(path.relative_to(root))) for run, path in zip(runs, paths, strict=True)]


def _splits(runs: Sequence[Run]) -> dict[str, str]:
    """Return number and origin of the images of each split, as far as they are recorded."""
    recorded = [run.splits for run in runs if run.splits]
    return {
        f"{name} images": "; ".join(dict.fromkeys(splits.count(one.get(name)) for one in recorded))
        for name in ("train", "validation", "test")
        if recorded
    }


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Return the software versions; nothing if the runs differ in them."""
    pairs = {(e.get("understudy"), e.get("torch")) for e in map(_environment, runs)}
    if len(pairs) != 1 or None in (versions := pairs.pop()):
        return {}
    return {"software": "understudy {}, torch {}".format(*versions)}


def _environment(run: Run) -> dict[str, Any]:
    return read_json(run.path / "environment.json", ENVIRONMENT, optional=True)


def _present(values: Sequence[float | None] | None) -> Numbers:
    return [value for value in values or [] if value is not None and math.isfinite(value)]
