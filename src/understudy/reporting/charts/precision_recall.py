"""Precision over recall of each class, a small picture for every one."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from understudy.reporting.results import Arm, Results

STEPS = 100
"""Precision is known at recalls of 0, 1/100, …; beyond the last one it is 0."""


@dataclass(frozen=True)
class Line:
    """One arm: a path over 100 × 100, and the average precision in percent, if it is known."""

    arm: Arm
    path: str
    average: float | None


@dataclass(frozen=True)
class Panel:
    """One class, and how many objects or images of it the test images hold."""

    name: str
    count: int
    lines: list[Line]


@dataclass(frozen=True)
class Precision:
    """All pictures; classes that are not drawn occur less often than these, or never."""

    panels: list[Panel]
    arms: list[Arm]
    hidden: int


def precision(results: Results) -> Precision | None:
    """The curves that arms kept, averaged over seeds; None if there are none."""
    arms = [arm for arm in results.arms if _kept(arm)]
    if not arms:
        return None
    first = _kept(arms[0])[0]
    counts = {entry["class"]: entry["count"] for entry in first}
    arms = [arm for arm in arms if all(_counts(seed) == counts for seed in _kept(arm))]
    teacher = _teacher(results, arms)
    panels = []
    for place, (c, count) in enumerate(counts.items()):
        name = results.classes[c] if c < len(results.classes) else f"class {c}"
        lines = [_line(arm, [seed[place]["student"] for seed in _kept(arm)], c) for arm in arms]
        if teacher:
            lines.insert(0, _line(teacher, [first[place]["teacher"]], c))
        panels.append(Panel(name, count, lines))
    hidden = max(len(results.classes) - len(panels), 0)
    return Precision(panels, [line.arm for line in panels[0].lines] if panels else [], hidden)


def _kept(arm: Arm) -> list[list[dict[str, Any]]]:
    return [run.diagnostics["precision"] for run in arm.runs if run.diagnostics.get("precision")]


def _counts(seed: Sequence[dict[str, Any]]) -> dict[int, int]:
    return {entry["class"]: entry["count"] for entry in seed}


def _teacher(results: Results, arms: Sequence[Arm]) -> Arm | None:
    """The teacher, if all arms have the same one; runs side by side may differ in it."""
    found = [[entry.get("teacher") for entry in seed] for arm in arms for seed in _kept(arm)]
    if None in found[0] or any(other != found[0] for other in found):
        return None
    own = [run.evaluation["teacher"]["per_class"] for arm in arms for run in arm.runs]
    return results.teacher or Arm("teacher", "teacher", "teacher", per_class=own[:1])


def _line(arm: Arm, seeds: Sequence[Sequence[float]], c: int) -> Line:
    reach = max(map(len, seeds))
    padded = [[*seed, *[0.0] * (reach - len(seed))] for seed in seeds]
    middle = [mean(values) for values in zip(*padded, strict=True)]
    reached = [value for value in middle if value]
    points = [f"{100 * i / STEPS:g},{100 - 100 * p:.1f}" for i, p in enumerate(reached)]
    known = [value for seed in arm.per_class if (value := seed[c]) is not None]
    return Line(arm, f"M{' '.join(points)}" if points else "", mean(known) if known else None)
