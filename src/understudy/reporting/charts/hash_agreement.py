"""Share of hash bits in which student and teacher agree, over the angle between their features."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from understudy.reporting.charts.style import INKS, REFERENCE, Chart, chart, line
from understudy.reporting.results import Arm

TITLE = "Hash agreement by angle"
CAPTION = (
    "lshfm compares features by hash bits: on which side of many random planes each lies. Share of "
    "equal bits of student and teacher over the angle between their features, with a dot at the "
    "mean of each arm. Good: dots far up and left. Random planes follow the dashed line 1 − θ/π; "
    "the planes of lshfm lie in the middle of the data, and its arms below the line."
)
ANGLE, EQUAL = "angle θ in degrees", "share of equal bits"
"""Labels of the axes."""
DEGREES = 2
"""Width of the bins in which the seeds are joined."""
RARE = 0.005
"""Bins with a smaller share of an arm's images are not drawn."""

Angles = list[tuple[float, float, int]]
"""For each bin: mean angle in degrees, mean agreement, number of images."""


def hash_agreement(arms: Sequence[Arm]) -> Chart | None:
    """Return the chart of all arms that measured it; None if none did."""
    lines = [(arm, joined(seeds)) for arm in arms if (seeds := arm.diagnostics("bits"))]
    if not lines:
        return None

    def draw(axes: Any) -> None:
        ends = [angle for _, bins in lines for angle in (bins[0][0], bins[-1][0])]
        law = [min(ends), max(ends)]
        axes.plot(law, [1 - a / 180 for a in law], color=INKS["muted"], **REFERENCE)
        for arm, bins in lines:
            angles, agreements, _ = zip(*bins, strict=True)
            line(axes, arm, angles, agreements)
            axes.plot(*middle(bins), color=INKS[arm.ink], marker="o", markersize=5)

    label = "Agreement of hash bits over the angle between the features"
    return chart(TITLE, CAPTION, draw, label=label, xlabel=ANGLE, ylabel=EQUAL)


def joined(seeds: Sequence[dict[str, Any]]) -> Angles:
    """Return the bins of all seeds joined, from small to large angles."""
    bins: dict[int, Angles] = defaultdict(list)
    for seed in seeds:
        for row in zip(seed["angle"], seed["agreement"], seed["images"], strict=True):
            bins[int(row[0] // DEGREES)].append(row)
    total = sum(count for rows in bins.values() for *_, count in rows)
    merged = [(*middle(rows), sum(row[2] for row in rows)) for _, rows in sorted(bins.items())]
    return [row for row in merged if row[2] >= RARE * total]


def middle(bins: Angles) -> tuple[float, float]:
    """Return mean angle and mean agreement over all images of the bins."""
    total = sum(count for *_, count in bins)
    angle, agreement = (sum(row[i] * row[2] for row in bins) / total for i in (0, 1))
    return angle, agreement
