"""Differences from the control as positions in percent: the page draws them with its own CSS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from understudy.reporting.results import Arm, Results

SHOWN = 15
"""With many classes, the page shows this many of the most gained and of the most lost."""


@dataclass(frozen=True)
class Interval:
    """An arm's difference, interval and seeds on one common axis, in percent of its width."""

    arm: Arm
    zero: float
    dot: float
    ends: tuple[float, float] | None
    seeds: list[float]


@dataclass(frozen=True)
class Change:
    """How one class changed against the control, in points; `left` and `width` in percent."""

    name: str
    control: float
    arm: float
    left: float
    width: float
    zero: float

    @property
    def difference(self) -> float:
        """Points above the control."""
        return self.arm - self.control


@dataclass(frozen=True)
class Changes:
    """The classes of one arm, the most gained first, and how many in the middle are not shown."""

    arm: Arm
    gained: list[Change]
    lost: list[Change]
    hidden: int


def intervals(results: Results) -> list[Interval]:
    """One row for each arm with a verdict, the best first."""
    control = results.control.values(results.metric) if results.control else []
    seeds = {
        arm.name: [a - c for a, c in zip(arm.values(results.metric), control, strict=True)]
        for arm in results.judged
    }
    ends = {arm.name: _ends(arm) for arm in results.judged}
    place = _scale([v for values in [*seeds.values(), *ends.values()] for v in values])
    return [
        Interval(
            arm,
            place(0),
            place(mean(seeds[arm.name])),
            (place(ends[arm.name][0]), place(ends[arm.name][1])) if ends[arm.name] else None,
            [place(seed) for seed in seeds[arm.name]],
        )
        for arm in results.judged
    ]


def _ends(arm: Arm) -> list[float]:
    low, high = ((arm.verdict or {})[key] for key in ("low", "high"))
    return [] if low is None or high is None else [low, high]


def changes(results: Results) -> list[Changes]:
    """The change of every class, for each arm with a verdict; empty without per-class results."""
    control = results.control
    if control is None or not control.per_class:
        return []
    found = {
        arm.name: _differences(results.classes, arm, control)
        for arm in results.judged
        if arm.per_class
    }
    place = _scale([d - c for rows in found.values() for _, c, d in rows])
    return [_cut(arm, found[arm.name], place) for arm in results.judged if found.get(arm.name)]


def _differences(classes: Sequence[str], arm: Arm, control: Arm) -> list[tuple[str, float, float]]:
    """Class, control, arm: means over the seeds; a class that no image shows is left out."""
    sides = (_class_means(control), _class_means(arm))
    rows = [
        (name, c, a)
        for name, c, a in zip(classes, *sides, strict=True)
        if c is not None and a is not None
    ]
    return sorted(rows, key=lambda row: row[1] - row[2])


def _class_means(arm: Arm) -> list[float | None]:
    columns = ([v for v in column if v is not None] for column in zip(*arm.per_class, strict=True))
    return [mean(column) if column else None for column in columns]


def _cut(
    arm: Arm, rows: list[tuple[str, float, float]], place: Callable[[float], float]
) -> Changes:
    bars = [_bar(*row, place) for row in rows]
    if len(bars) <= 2 * SHOWN:
        return Changes(arm, bars, [], 0)
    return Changes(arm, bars[:SHOWN], bars[-SHOWN:], len(bars) - 2 * SHOWN)


def _bar(name: str, control: float, arm: float, place: Callable[[float], float]) -> Change:
    zero, end = place(0), place(arm - control)
    return Change(name, control, arm, min(zero, end), abs(end - zero), zero)


def _scale(values: Sequence[float]) -> Callable[[float], float]:
    """Map values, and 0, to 2 … 98 percent of an axis."""
    low, high = min([0.0, *values]), max([0.0, *values])
    reach = high - low or 1.0
    return lambda value: round(2 + 96 * (value - low) / reach, 2)
