"""One number per arm, with and without its projector, as positions in percent of an axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

from understudy.reporting.charts.style import percent_axis
from understudy.reporting.results import Arm, Numbers


@dataclass(frozen=True)
class Measured:
    """The values of one arm, one per seed: without a projector, and behind it if there is one."""

    arm: Arm
    own: Numbers
    projected: Numbers = field(default_factory=list)


@dataclass(frozen=True)
class Point:
    """Mean over the seeds, its position, and the positions of the seeds."""

    value: float
    position: float
    seeds: Numbers


@dataclass(frozen=True)
class DotRow:
    """One arm: without a projector, and behind it; None where not measured."""

    arm: Arm
    own: Point | None
    projected: Point | None

    @property
    def span(self) -> tuple[float, float] | None:
        """Left end and width of the bar between both points."""
        if self.own is None or self.projected is None:
            return None
        left, right = sorted((self.own.position, self.projected.position))
        return left, round(right - left, 2)

    @property
    def text(self) -> str:
        """The values, such as `0.500 → 0.700`."""
        return " → ".join(f"{p.value:.3f}" for p in (self.own, self.projected) if p)


@dataclass(frozen=True)
class DotPlot:
    """One chart; `line` is the position of the teacher, None if it has no row.

    A tick is a position in percent and its text.
    """

    title: str
    caption: str
    rows: list[DotRow]
    line: float | None
    ticks: list[tuple[float, str]]

    @property
    def projects(self) -> bool:
        """True if any arm has a projector: points without one are then hollow."""
        return any(row.projected for row in self.rows)


def dot_plot(title: str, caption: str, arms: Sequence[Measured]) -> DotPlot | None:
    """Return the chart of some arms; None if there are fewer than two numbers to compare."""
    measured = [one for one in arms if one.own or one.projected]
    if sum(bool(numbers) for one in measured for numbers in (one.own, one.projected)) < 2:
        return None
    scale = percent_axis([value for one in measured for value in [*one.own, *one.projected]])
    rows = [
        DotRow(one.arm, _point(one.own, scale), _point(one.projected, scale)) for one in measured
    ]
    teacher = (row.own.position for row in rows if row.arm.role == "teacher" and row.own)
    return DotPlot(title, caption, rows, next(teacher, None), scale.ticks)


def _point(values: Numbers, scale: Callable[[float], float]) -> Point | None:
    return Point(mean(values), scale(mean(values)), list(map(scale, values))) if values else None
