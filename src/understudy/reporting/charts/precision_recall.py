"""Precision over recall, one small chart per class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from understudy.reporting.results import TEACHER, Arm, Results

STEPS = 100
"""Precision is stored at recalls of 0, 1/100, …; beyond the last stored one it is 0."""


@dataclass(frozen=True)
class PrecisionCurve:
    """One arm: a path over 100 × 100, and the average precision in percent, None if unknown."""

    arm: Arm
    path: str
    average: float | None


@dataclass(frozen=True)
class Panel:
    """The curves of one class, and the number of its objects or images in the test set."""

    name: str
    count: int
    curves: list[PrecisionCurve]


@dataclass(frozen=True)
class PrecisionRecall:
    """All panels; `hidden` counts the classes without one, which are rarer or absent."""

    panels: list[Panel]
    arms: list[Arm]
    hidden: int


def precision_recall(results: Results) -> PrecisionRecall | None:
    """Return the curves of all arms, averaged over their seeds; None if no arm has any."""
    arms = [arm for arm in results.arms if _seeds(arm)]
    if not arms:
        return None
    first = _seeds(arms[0])[0]
    counts = _counts(first)
    arms = [arm for arm in arms if all(_counts(seed) == counts for seed in _seeds(arm))]
    teacher = _teacher(results, arms)
    panels = []
    for row, (c, count) in enumerate(counts.items()):
        curves = [_curve(arm, [seed[row]["student"] for seed in _seeds(arm)], c) for arm in arms]
        if teacher:
            curves.insert(0, _curve(teacher, [first[row]["teacher"]], c))
        panels.append(Panel(results.class_name(c), count, curves))
    hidden = max(len(results.classes) - len(panels), 0)
    drawn = [curve.arm for curve in panels[0].curves] if panels else []
    return PrecisionRecall(panels, drawn, hidden)


def _seeds(arm: Arm) -> list[list[dict[str, Any]]]:
    """Return for each seed one entry per class."""
    return arm.diagnostics("precision")


def _counts(seed: Sequence[dict[str, Any]]) -> dict[int, int]:
    return {entry["class"]: entry["count"] for entry in seed}


def _teacher(results: Results, arms: Sequence[Arm]) -> Arm | None:
    """Return the teacher; None if there is none, or if the arms have different ones."""
    first, *others = [
        [entry.get("teacher") for entry in seed] for arm in arms for seed in _seeds(arm)
    ]
    if None in first or any(other != first for other in others):
        return None
    measured = [run.evaluation.get("teacher") or {} for arm in arms for run in arm.runs]
    per_class = [one["per_class"] for one in measured if one.get("per_class")]
    return results.teacher or replace(TEACHER, per_class=per_class[:1])


def _curve(arm: Arm, seeds: Sequence[Sequence[float]], c: int) -> PrecisionCurve:
    length = max(map(len, seeds))
    padded = [[*seed, *[0.0] * (length - len(seed))] for seed in seeds]
    means = [mean(values) for values in zip(*padded, strict=True)]
    reached = [value for value in means if value]
    points = [f"{100 * i / STEPS:g},{100 - 100 * p:.1f}" for i, p in enumerate(reached)]
    rows = (seed[c] for seed in arm.per_class if c < len(seed))
    known = [value for value in rows if value is not None]
    path = f"M{' '.join(points)}" if points else ""
    return PrecisionCurve(arm, path, mean(known) if known else None)
