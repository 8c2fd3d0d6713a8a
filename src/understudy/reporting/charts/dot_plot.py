"""One number for each arm, and what a projector makes of it, as places in percent of one axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

from understudy.reporting.results import Arm, Numbers


@dataclass(frozen=True)
class Measured:
    """One arm: a number for each seed without a projector, and with one where there is one."""

    arm: Arm
    own: Numbers
    projected: Numbers = field(default_factory=list)


@dataclass(frozen=True)
class Point:
    """Mean over the seeds, its place, and the places of the seeds."""

    value: float
    place: float
    seeds: Numbers


@dataclass(frozen=True)
class Row:
    """One arm without a projector and with it, as far as there is one."""

    arm: Arm
    own: Point | None
    projected: Point | None

    @property
    def span(self) -> tuple[float, float] | None:
        """Left end and width of what lies between both."""
        if self.own is None or self.projected is None:
            return None
        left, right = sorted((self.own.place, self.projected.place))
        return left, round(right - left, 2)

    @property
    def text(self) -> str:
        """The numbers."""
        return " → ".join(f"{p.value:.3f}" for p in (self.own, self.projected) if p)


@dataclass(frozen=True)
class Dots:
    """One picture; `line` is where the teacher lies, if it is among the rows."""

    title: str
    words: str
    rows: list[Row]
    line: float | None

    @property
    def projects(self) -> bool:
        """Whether any arm has a projector: dots without one are then hollow."""
        return any(row.projected for row in self.rows)


def dots(title: str, words: str, found: Sequence[Measured]) -> Dots | None:
    """The numbers of some arms; None if there are not two to compare."""
    shown = [one for one in found if one.own or one.projected]
    if sum(bool(numbers) for one in shown for numbers in (one.own, one.projected)) < 2:
        return None
    values = [value for one in shown for value in [*one.own, *one.projected]]
    low, reach = min(values), max(values) - min(values) or 1.0

    def place(value: float) -> float:
        return round(2 + 96 * (value - low) / reach, 2)

    rows = [Row(one.arm, _point(one.own, place), _point(one.projected, place)) for one in shown]
    line = next((row.own.place for row in rows if row.arm.role == "teacher" and row.own), None)
    return Dots(title, words, rows, line)


def _point(values: Numbers, place: Callable[[float], float]) -> Point | None:
    return Point(mean(values), place(mean(values)), list(map(place, values))) if values else None
