"""Differences from the control, of arms and of classes, as positions in percent of an axis."""

from dataclasses import dataclass
from statistics import mean

from understudy.reporting.charts.style import PercentAxis, percent_axis
from understudy.reporting.measured_images import MeasuredImages, measured_images
from understudy.reporting.results import Arm, Results

CLASSES = 15
"""With many classes, the page lists so many of the largest gains and so many of the losses."""


@dataclass(frozen=True)
class Interval:
    """An arm's mean difference, interval and seeds on the common axis, in percent of its width."""

    arm: Arm
    zero: float
    dot: float
    ends: tuple[float, float] | None
    seeds: list[float]


@dataclass(frozen=True)
class Intervals:
    """All rows on one axis; a tick is a position in percent and its text."""

    rows: list[Interval]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Change:
    """How one class changed against the control, in points; `left` and `width` in percent.

    `images` is the number of its test images, or objects of a detector; None if it is not known.
    """

    name: str
    images: int | None
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
    """The classes of one arm, largest gain first, and the number of classes left out between."""

    arm: Arm
    gained: list[Change]
    lost: list[Change]
    hidden: int
    ticks: list[tuple[float, str]]


def intervals(results: Results) -> Intervals | None:
    """Return one row for each arm with a verdict, the best first; None without a verdict."""
    if not results.judged:
        return None
    control = results.control.values(results.metric) if results.control else []
    seeds = {
        arm.name: [a - c for a, c in zip(arm.values(results.metric), control, strict=True)]
        for arm in results.judged
    }
    ends = {arm.name: _ends(arm) for arm in results.judged}
    drawn = [0.0, *(v for rows in (seeds, ends) for row in rows.values() for v in row)]
    scale = percent_axis(drawn, signs=True)
    rows = [
        Interval(
            arm,
            scale(0),
            scale(mean(seeds[arm.name])),
            (scale(ends[arm.name][0]), scale(ends[arm.name][1])) if ends[arm.name] else None,
            [scale(seed) for seed in seeds[arm.name]],
        )
        for arm in results.judged
    ]
    return Intervals(rows, scale.ticks)


def _ends(arm: Arm) -> list[float]:
    low, high = ((arm.verdict or {})[key] for key in ("low", "high"))
    return [] if low is None or high is None else [low, high]


def changes(results: Results) -> list[Changes]:
    """Return the change of every class, for each arm with a verdict; empty if not measured."""
    control = results.control
    if control is None or not control.per_class:
        return []
    images = measured_images(results)
    rows_of = {
        arm.name: _differences(results, images, arm, control)
        for arm in results.judged
        if arm.per_class
    }
    differences = [a - c for rows in rows_of.values() for _, _, c, a in rows]
    scale = percent_axis([0.0, *differences], signs=True)
    return [_cut(arm, rows_of[arm.name], scale) for arm in results.judged if rows_of.get(arm.name)]


_Row = tuple[str, int | None, float, float]
"""Class, number of its test images, and the means of control and arm over the seeds."""


def _differences(results: Results, images: MeasuredImages, arm: Arm, control: Arm) -> list[_Row]:
    """Return a row for each class that any image shows, the largest gain first."""
    sides = zip(_class_means(control), _class_means(arm), strict=True)
    rows = [
        (results.class_name(number), images.of_class(number), c, a)
        for number, (c, a) in enumerate(sides)
        if c is not None and a is not None
    ]
    return sorted(rows, key=lambda row: row[2] - row[3])


def _class_means(arm: Arm) -> list[float | None]:
    columns = ([v for v in column if v is not None] for column in zip(*arm.per_class, strict=True))
    return [mean(column) if column else None for column in columns]


def _cut(arm: Arm, rows: list[_Row], scale: PercentAxis) -> Changes:
    bars = [_bar(*row, scale) for row in rows]
    if len(bars) <= 2 * CLASSES:
        return Changes(arm, bars, [], 0, scale.ticks)
    return Changes(arm, bars[:CLASSES], bars[-CLASSES:], len(bars) - 2 * CLASSES, scale.ticks)


def _bar(name: str, images: int | None, control: float, arm: float, scale: PercentAxis) -> Change:
    zero, end = scale(0), scale(arm - control)
    return Change(name, images, control, arm, min(zero, end), abs(end - zero), zero)
