"""Accuracy over latency of several networks, with the front that no other network beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        for student in dict.fromkeys(point.student for point in points):
            _label(axes, [point for point in points if point.student == student], points)
        axes.margins(x=0.18, y=0.16)
        _scale(axes, points)

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


def _label(axes: Any, own: Sequence[Point], points: Sequence[Point]) -> None:
    """Write the name of a student beside its best point, towards the middle of the chart."""
    top = max(own, key=lambda p: p.value)
    last = top.ms == max(point.ms for point in points)
    axes.annotate(
        own[0].student,
        (top.ms, top.value),
        xytext=(-7 if last else 7, 3),
        textcoords="offset points",
        ha="right" if last else "left",
        va="bottom",
        fontsize=8,
        color=INKS["muted"],
    )


def _scale(axes: Any, points: Sequence[Point]) -> None:
    """Use powers of ten where the times span more than one."""
    times = [point.ms for point in points]
    if max(times) > 10 * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
