"""Judge the runs of a comparison: the content of `comparison.json` from run directories."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from understudy.comparison.arms import CONTROL
from understudy.comparison.result import Comparison
from understudy.comparison.statistics import (
    ImageSpread,
    Scores,
    Verdict,
    ended_early,
    verdicts,
)
from understudy.config.json_form import check_form
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment.run_directory import Run
from understudy.experiment.run_forms import JUDGED
from understudy.training import hardware

Runs = Mapping[str, Sequence[Run]]
"""Arm → its runs, one for each seed; those of an arm that diverged end with that run."""

Failures = Mapping[tuple[str, int], str]
"""Arm and seed of a run that is not finished → why, in a sentence."""


def judge(
    recipe: Recipe,
    arms: Mapping[str, Recipe],
    runs: Runs,
    failures: Failures,
    *,
    seeds: Sequence[int],
    root: Path,
    metric: str,
) -> Comparison:
    """Return the result of a comparison whose control is complete.

    Args:
        recipe: Recipe of the comparison.
        arms: Recipe of every arm, the control first.
        runs: Runs of every arm.
        failures: Why runs are missing.
        seeds: Seeds of the comparison.
        root: Comparison directory.
        metric: Metric that ranks students.

    Raises:
        RunError: A run did not measure the metric.
    """
    control = runs[CONTROL][0].evaluation
    teacher = control["teacher"]
    finished = [run for group in runs.values() for run in group if run.finished]
    for run in finished:
        remedy = f"delete {run.path} and compare again"
        check_form(run.evaluation, JUDGED, run.path / "evaluation.json", remedy=remedy)
    judged = _verdicts(runs, failures, metric)
    teacher_seconds = sum(run.evaluation["teacher_seconds"] or 0.0 for run in finished)
    return Comparison(
        name=recipe.name,
        task=recipe.task,
        metric=metric,
        recipe_digest=recipe.digest,
        machine=hardware.describe()["machine"],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(run.seconds for group in runs.values() for run in group),
        classes=control["classes"],
        teacher=teacher and teacher | {"seconds": teacher_seconds},
        teachers=control.get("teachers", {}),
        arms=[
            {
                "name": name,
                "methods": arms[name].each_method,
                "seeds": list(seeds),
                "runs": [str(run.path.relative_to(root)) for run in group if run.finished],
                "failed": {str(seed): why for (arm, seed), why in failures.items() if arm == name},
                **_measurements([run.evaluation for run in group if run.finished]),
                "verdict": asdict(judged[name]) if name in judged else None,
            }
            for name, group in runs.items()
        ],
        path=root,
    )


def _verdicts(runs: Runs, failures: Failures, metric: str) -> dict[str, Verdict]:
    """Return the verdict on every arm but the control."""
    control, methods = runs[CONTROL], {k: v for k, v in runs.items() if k != CONTROL}
    ended = {
        name: ended_early(name, "diverged", group[-1].diverged)
        for name, group in methods.items()
        if group and group[-1].diverged
    }
    for (name, seed), reason in failures.items():
        ended.setdefault(name, ended_early(name, "failed", f"seed {seed}: {reason}"))
    scores = {
        name: Scores([_score(run, metric) for run in group], _image_spread(group, control, metric))
        for name, group in methods.items()
        if name not in ended
    }
    teacher = control[0].evaluation["teacher"] or {"metrics": {}}
    reached = teacher["metrics"].get(metric)
    judged = verdicts(scores, [_score(run, metric) for run in control], reached, metric=metric)
    return judged | ended


def _image_spread(arm: Sequence[Run], control: Sequence[Run], metric: str) -> ImageSpread | None:
    """Spread of the difference over the choice of test images; None if a run kept no outcomes."""
    groups = [[run.outcomes for run in group] for group in (arm, control)]
    kept = [outcomes for group in groups for outcomes in group]
    if not all(kept) or {outcomes["metric"] for outcomes in kept} != {metric}:
        return None
    lengths = {(o["images"], len(o["correct"] or ""), len(o["resampled"] or ())) for o in kept}
    if len(lengths) > 1:
        counts = " and ".join(f"{count:,}" for count in sorted({o["images"] for o in kept}))
        raise RunError(
            f"{arm[0].path} and the runs beside it were not measured on the same test images "
            f"({counts} of them in outcomes.json): delete those of other images and compare again."
        )
    if kept[0]["correct"]:
        correct = [np.array([list(o["correct"]) for o in group]) == "1" for group in groups]
        return ImageSpread.paired(*correct)
    resampled = [np.array([o["resampled"] for o in group]) for group in groups]
    return ImageSpread.resampled(*resampled, images=kept[0]["images"])


def _score(run: Run, metric: str) -> float:
    values = run.evaluation["metrics"] | (run.evaluation["fidelity"] or {})
    if metric not in values:
        raise RunError(
            f"{run.path} cannot be judged by {metric}: the test images have no labels; give some "
            "a label, or train each method by `understudy distill --task none` and put the runs "
            "side by side by `understudy report`."
        )
    if values[metric] is None:
        raise RunError(
            f"{run.path} cannot be judged by {metric}, which could not be computed: look at the "
            "curves of that run."
        )
    return float(values[metric])


def _measurements(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the measurements of one arm, each a list over its finished seeds."""
    counted = evaluations[0] if evaluations else {}
    return {
        "metrics": _over_seeds([e["metrics"] for e in evaluations]),
        "per_class": [e["per_class"] for e in evaluations],
        "fidelity": _over_seeds([e["fidelity"] or {} for e in evaluations]),
        "cost": {
            "seconds": [_own_seconds(e) for e in evaluations],
            "memory_mb": [e["memory_mb"] for e in evaluations],
            "parameters": counted.get("parameters"),
            "train_parameters": counted.get("train_parameters"),
        },
    }


def _own_seconds(evaluation: Mapping[str, Any]) -> float:
    """Return the seconds of a run without those of filling the bank, which all arms share."""
    whole = evaluation["prepare_seconds"] + evaluation["seconds"]
    return float(whole - (evaluation["teacher_seconds"] or 0.0))


def _over_seeds(parts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return name → values over the seeds; None for a seed that did not measure it."""
    return {key: [part.get(key) for part in parts] for one in parts for key in one}
