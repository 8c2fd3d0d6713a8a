"""Hash bits in which student and teacher agree, by the angle between their features."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from understudy.reporting.charts.style import DASHES, INKS, drawn
from understudy.reporting.charts.training_curves import Curve
from understudy.reporting.results import Arm

TITLE = "Hash bits by angle"
WORDS = (
    "Share of hash bits in which both networks agree, dots at the mean angle of each arm; look for "
    "arms that leave the dashed line 1 − θ/π of random hashes, as lshfm's do."
)
DEGREES = 2
"""Width of the bins in which the seeds are joined."""
RARE = 0.005
"""Bins with a smaller share of an arm's images are left out."""

Angles = list[tuple[float, float, int]]
"""Mean angle in degrees, mean agreement, and the number of images."""


def bits(found: Sequence[tuple[Arm, list[dict[str, Any]]]]) -> Curve | None:
    """The chart of some arms, each with what was measured of every seed; None without any."""
    lines = [(arm, joined(seeds)) for arm, seeds in found if seeds]
    if not lines:
        return None

    def draw(axes: Any) -> None:
        ends = [angle for _, line in lines for angle in (line[0][0], line[-1][0])]
        law = [min(ends), max(ends)]
        axes.plot(law, [1 - a / 180 for a in law], color=INKS["muted"], dashes=(4, 3), linewidth=1)
        for arm, line in lines:
            _line(axes, arm, line)

    label = "Agreement of hash bits over the angle between the features"
    return Curve(TITLE, WORDS, drawn(draw, title=TITLE, label=label, xlabel="angle in degrees"))


def _line(axes: Any, arm: Arm, line: Angles) -> None:
    ink = INKS[arm.ink]
    angles, agreements, _ = zip(*line, strict=True)
    dash = DASHES[arm.dash % len(DASHES)]
    axes.plot(angles, agreements, color=ink, linestyle=dash, linewidth=1.6)
    axes.plot(*middle(line), color=ink, marker="o", markersize=5)


def joined(seeds: Sequence[dict[str, Any]]) -> Angles:
    """The bins of all seeds together, from small to large angles."""
    bins: dict[int, Angles] = defaultdict(list)
    for seed in seeds:
        for row in zip(seed["angle"], seed["agreement"], seed["images"], strict=True):
            bins[int(row[0] // DEGREES)].append(row)
    total = sum(count for rows in bins.values() for *_, count in rows)
    line = [(*middle(rows), sum(row[2] for row in rows)) for _, rows in sorted(bins.items())]
    return [row for row in line if row[2] >= RARE * total]


def middle(line: Angles) -> tuple[float, float]:
    """Mean angle and mean agreement over all images."""
    total = sum(count for *_, count in line)
    angle, agreement = (sum(row[i] * row[2] for row in line) / total for i in (0, 1))
    return angle, agreement
