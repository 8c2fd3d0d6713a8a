"""Comparison and run directories → results."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import RunError
from understudy.experiment.run_directory import Run, read_json
from understudy.reporting.results import METHOD_INKS, Arm, Numbers, Results, duration

HEADLINES = ("top1", "mAP", "AP50")
"""Metrics that rank students; a task has one of them."""


def read(paths: Sequence[Path]) -> Results:
    """The results in one comparison directory, or in one or several run directories.

    Raises:
        RunError: A directory is missing or damaged, or comparisons and runs are mixed.
    """
    if not paths:
        raise RunError("There is nothing to report on: name a comparison or run directories.")
    comparisons = [path for path in paths if (path / "comparison.json").is_file()]
    if not comparisons:
        return of_runs([Run.open(path) for path in paths])
    if len(paths) > 1:
        raise RunError(
            f"A report shows one comparison or several runs, not {comparisons[0]} beside "
            f"{len(paths) - 1} more; report on each comparison by itself."
        )
    return of_comparison(read_json(paths[0] / "comparison.json"), root=paths[0])


def of_comparison(content: Mapping[str, Any], *, root: Path | None = None) -> Results:
    """The content of a `comparison.json`, and of the runs below `root` for the curves, if given.

    Raises:
        RunError: An entry or a run is missing.
    """
    try:
        return _of_comparison(content, root)
    except KeyError as error:
        raise RunError(
            f"The comparison has no entry {error}; it was damaged, or written by another version "
            "of Understudy: compare again."
        ) from error


def _of_comparison(content: Mapping[str, Any], root: Path | None) -> Results:
    runs = {
        row["name"]: [Run.open(root / path) for path in row["runs"]] if root else []
        for row in content["arms"]
    }
    teacher, rows = content["teacher"], content["arms"]
    names = [row["name"] for row in rows if row["verdict"]]
    arms = [_teacher(teacher)] if teacher else []
    arms += [_arm(row, names, runs[row["name"]]) for row in rows]
    seeds = ", ".join(map(str, rows[0]["seeds"]))
    facts = {
        "task": content["task"],
        "teacher": teacher["name"] if teacher else "none",
        "seeds of each arm": seeds,
        "recipe digest": content["recipe_digest"],
        "machine": content["machine"],
        "created": content["created"],
        "time in all": duration(content["seconds"]),
    }
    facts |= _versions([run for group in runs.values() for run in group])
    return Results(content["name"], content["metric"], content["classes"], arms, facts)


def _teacher(content: Mapping[str, Any]) -> Arm:
    return Arm(
        "teacher",
        "teacher",
        "teacher",
        metrics={key: [value] for key, value in content["metrics"].items() if value is not None},
        per_class=[content["per_class"]] if content.get("per_class") else [],
        seconds=[content["seconds"]] if content.get("seconds") else [],
        parameters=content["parameters"],
    )


def _arm(row: Mapping[str, Any], methods: Sequence[str], runs: list[Run]) -> Arm:
    place = methods.index(row["name"]) if row["verdict"] else None
    cost = row["cost"]
    return Arm(
        row["name"],
        "control" if place is None else "method",
        "control" if place is None else f"c{place % METHOD_INKS}",
        dash=0 if place is None else place // METHOD_INKS,
        metrics={key: _present(values) for key, values in row["metrics"].items()},
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
    """Runs side by side, without a verdict."""
    arms = [_lone(run, name, place) for place, (run, name) in enumerate(_named(runs))]
    measured = next(
        (arm.metrics or arm.fidelity for arm in arms if arm.metrics or arm.fidelity), {}
    )
    metric = next((key for key in (*HEADLINES, *measured) if key in measured), "top1")
    machines = {str(e["machine"]) for e in map(_environment, runs) if "machine" in e}
    facts = {"machine": ", ".join(sorted(machines))} if machines else {}
    title = ", ".join(arm.name for arm in arms)
    classes = [_evaluation(run).get("classes") or [] for run in runs]
    alike = all(names == classes[0] for names in classes)
    return Results(title, metric, classes[0] if alike else [], arms, facts | _versions(runs))


def _evaluation(run: Run) -> dict[str, Any]:
    """The evaluation of a finished run; empty before."""
    return run.evaluation if run.finished else {}


def _lone(run: Run, name: str, place: int) -> Arm:
    done = _evaluation(run)
    evaluated: dict[str, Any] = next(
        (e for e in reversed(run.history) if e["metrics"] or e["fidelity"]), {}
    )
    metrics = done.get("metrics") or evaluated.get("metrics") or {}
    fidelity = done.get("fidelity") or evaluated.get("fidelity") or {}
    seconds = done.get("seconds", sum(epoch["seconds"] for epoch in run.history))
    return Arm(
        name,
        "run",
        f"c{place % METHOD_INKS}",
        dash=place // METHOD_INKS,
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
    """Each run with the shortest end of its path that tells it from the others."""
    paths = [run.path.resolve() for run in runs]
    root = Path(os.path.commonpath(paths)) if len(set(paths)) > 1 else paths[0].parent
    return [(run, str(path.relative_to(root))) for run, path in zip(runs, paths, strict=True)]


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Versions of the software, as long as all runs agree."""
    found = {(e.get("understudy"), e.get("torch")) for e in map(_environment, runs)}
    if len(found) != 1 or None in (versions := found.pop()):
        return {}
    return {"software": "understudy {}, torch {}".format(*versions)}


def _environment(run: Run) -> dict[str, Any]:
    return read_json(run.path / "environment.json", optional=True)


def _present(values: Sequence[float | None] | None) -> Numbers:
    return [value for value in values or [] if value is not None and math.isfinite(value)]
