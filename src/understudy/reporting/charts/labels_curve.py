"""Metric of fine-tuned students over the number of labels they had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.reporting.charts.style import INKS, Chart, chart, line
from understudy.reporting.columns import name, with_unit
from understudy.reporting.results import Arm

CAPTION = (
    "Each dot is the mean of one arm over the seeds, its bar one standard deviation; grey: the "
    "student that was not distilled, trained with the same labels. Where its line is below "
    "another, distilling was worth something with that many labels."
)


LABELS = "training images with a label"


@dataclass(frozen=True)
class Point:
    """One arm with one number of labels: the mean of the metric and its standard deviation."""

    labels: int
    arm: Arm
    mean: float
    deviation: float


def labels_curve(points: Sequence[Point], metric: str) -> Chart | None:
    """Return the chart; None if there is only one number of labels."""
    counts = sorted({point.labels for point in points})
    if len(counts) < 2:
        return None
    arms: Mapping[str, Arm] = {point.arm.name: point.arm for point in points}

    def draw(axes: Any) -> None:
        for arm in arms.values():
            own = sorted((p for p in points if p.arm.name == arm.name), key=lambda p: p.labels)
            xs, ys = [p.labels for p in own], [p.mean for p in own]
            line(axes, arm, xs, ys, marker="o")
            axes.errorbar(
                xs, ys, [p.deviation for p in own], fmt="none", ecolor=INKS[arm.ink], elinewidth=1
            )
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()

    title = f"{name(metric)} by the number of labels"
    return chart(title, CAPTION, draw, label=title, xlabel=LABELS, ylabel=with_unit(metric))
