"""Accuracy over latency of several networks, with the front that no other network beats in both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from understudy.reporting.charts.style import INKS, Chart, chart
from understudy.reporting.columns import name, with_unit
from understudy.reporting.results import Arm

CAPTION = (
    "Each mark is the mean of one arm over the seeds, and its bar the standard deviation: a lead "
    "within the bars may be chance. Hollow, with the wide bar: the control, the same student "
    "without its teacher. "
    "Square: the teacher. Further left is faster, further up is better; the line joins the "
    "networks that no other one beats in both (the front)."
)


TIME = "ms for one image (torch, fp32)"


@dataclass(frozen=True)
class Point:
    """One network: its student, its arm, its time for an image and its metric.

    Attributes:
        spread: Standard deviation of the metric over the seeds; 0 of a single one.
    """

    student: str
    arm: Arm
    ms: float
    value: float
    spread: float = 0.0


def front(points: Sequence[Point], *, lower: bool = False) -> list[Point]:
    """Return the points that no other one beats in time and metric, the fastest first.

    Args:
        points: All networks.
        lower: A lower metric is better.
    """
    sign = -1 if lower else 1
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -sign * p.value)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best


def pareto(points: Sequence[Point], metric: str) -> Chart | None:
    """Return the chart; None if the networks are all equally fast."""
    if len({point.ms for point in points}) < 2:
        return None
    best = front(points, lower=metric == "loss")

    def draw(axes: Any) -> None:
        _line(axes, best)
        for point in points:
            _dot(axes, point)
        axes.margins(x=0.12, y=0.16)
        _scale(axes, points)
        _labels(axes, points)

    title = f"{name(metric)} over latency"
    label = f"{title}, with the front of the best networks"
    return chart(title, CAPTION, draw, label=label, xlabel=TIME, ylabel=with_unit(metric))


def _line(axes: Any, best: Sequence[Point]) -> None:
    """Draw the front as steps: between two networks, nothing better than the faster is known."""
    xs, ys = [p.ms for p in best], [p.value for p in best]
    axes.step(xs, ys, where="post", color=INKS["muted"], linewidth=1.2, zorder=1)


def _dot(axes: Any, point: Point) -> None:
    color, hollow = INKS[point.arm.ink], point.arm.role == "control"
    # Arms of a student stand above each other: the control's bar is wide and pale behind theirs.
    bar = {"lw": 5, "alpha": 0.3} if hollow else {"lw": 1.2}
    axes.vlines(point.ms, point.value - point.spread, point.value + point.spread, color, **bar)
    axes.plot(
        [point.ms],
        [point.value],
        marker="s" if point.arm.role == "teacher" else "o",
        markersize=6,
        color=color,
        markerfacecolor="none" if hollow else color,
        markeredgewidth=1.6,
        linestyle="",
    )


_Box = tuple[float, float, float, float]
"""Left, bottom, right and top in points of the drawing."""
_LETTER, _LINE, _MARK = 5.5, 12.0, 5.0
"""Width of a letter and height of a line on the page, and half the side of a mark, in points."""


def _labels(axes: Any, points: Sequence[Point]) -> None:
    """Write the name of each student beside its marks, where it covers the least of the chart."""
    axes.figure.draw_without_rendering()  # the axes have their size only then
    scale, (left, bottom, right, top) = 72 / axes.figure.dpi, axes.bbox.extents
    frame = (left * scale, bottom * scale, right * scale, top * scale)
    places = {id(p): axes.transData.transform((p.ms, p.value)) * scale for p in points}
    taken = [_around(*places[id(p)]) for p in points]
    for student in dict.fromkeys(point.student for point in points):
        own = sorted((p for p in points if p.student == student), key=lambda p: p.value)
        text = student.rpartition(":")[2]
        choices = list(_beside(places[id(own[-1])], places[id(own[0])], text))
        box, align = min(choices, key=lambda choice: _covered(choice[0], taken, frame))
        taken.append(box)
        axes.annotate(
            text,
            (box[0] if align == "left" else box[2], box[1]),
            xycoords="figure points",
            ha=align,
            va="bottom",
            fontsize=8,
            color=INKS["muted"],
        )


def _around(x: float, y: float) -> _Box:
    return x - _MARK, y - _MARK, x + _MARK, y + _MARK


def _beside(best: Sequence[float], worst: Sequence[float], text: str) -> Iterator[tuple[_Box, str]]:
    """Yield boxes for a name, the better first, and how its text is aligned in them.

    Args:
        best: Place of the student's best mark.
        worst: Place of its worst mark.
        text: The name.
    """
    width = _LETTER * len(text)
    for (x, y), above in ((best, 3.0), (worst, -3.0 - _LINE), (best, 14.0), (worst, -14.0 - _LINE)):
        low, high = y + above, y + above + _LINE
        yield (x + 7, low, x + 7 + width, high), "left"
        yield (x - 7 - width, low, x - 7, high), "right"


def _covered(box: _Box, taken: Sequence[_Box], frame: _Box) -> float:
    """Return the area of a box that others have, or that lies outside of the axes."""
    size = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_common(box, other) for other in taken) + size - _common(box, frame)


def _common(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _scale(axes: Any, points: Sequence[Point]) -> None:
    """Divide the axis by ratios where the slowest network takes much longer than the fastest."""
    times = [point.ms for point in points]
    if max(times) > _WIDE * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())


_WIDE = 5.0
"""Ratio of the largest time to the smallest from which the axis is logarithmic."""
