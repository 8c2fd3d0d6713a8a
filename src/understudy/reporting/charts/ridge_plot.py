"""Distributions, one row per arm, as outlines in percent that the page scales to its width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from understudy.reporting.results import Arm

BINS = 72
"""Bins of every row of a chart."""
TAIL = 0.005
"""Share of an arm's images that may lie outside the axis, on either side."""

Histogram = dict[str, Any]
"""As in diagnostics.json: `low`, `high`, `mean`, and `counts` in equal bins."""
Edges = NDArray[np.float64]


@dataclass(frozen=True)
class Ridge:
    """One arm: the outline of its distribution, and the mean over images and seeds."""

    arm: Arm
    outline: str
    """An SVG path over 100 × 100."""
    mean: float
    position: float
    """Position of the mean, in percent."""


@dataclass(frozen=True)
class RidgePlot:
    """One chart; a tick is a position in percent and its text."""

    title: str
    caption: str
    rows: list[Ridge]
    reference: str
    """The teacher's outline, drawn over every other row; empty without a teacher."""
    ticks: list[tuple[float, str]]


def ridge_plot(
    title: str, caption: str, arms: Sequence[tuple[Arm, list[Histogram]]]
) -> RidgePlot | None:
    """Return the distributions of some arms on one axis; None if no student has any.

    Args:
        title: Title of the chart.
        caption: How to read it.
        arms: Arms, each with one histogram per seed.
    """
    measured = [(arm, seeds) for arm, seeds in arms if seeds]
    if not any(arm.role != "teacher" for arm, _ in measured):
        return None
    edges, ticks = _axis([seed for _, seeds in measured for seed in seeds])
    rows = [_ridge(arm, seeds, edges) for arm, seeds in measured]
    reference = next((row.outline for row in rows if row.arm.role == "teacher"), "")
    scale = _scale(edges)
    return RidgePlot(
        title, caption, rows, reference, [(scale(tick), f"{tick:g}") for tick in ticks]
    )


def shares(histogram: Histogram, edges: Edges) -> NDArray[np.float64]:
    """Return the share of images between neighbouring edges, if spread evenly within own bins."""
    own, below = _cumulative(histogram)
    return np.diff(np.interp(edges, own, below))


def _cumulative(histogram: Histogram) -> tuple[Edges, Edges]:
    counts = np.asarray(histogram["counts"], dtype=np.float64)
    own = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
    return own, np.concatenate([[0.0], counts.cumsum()]) / counts.sum()


def _axis(histograms: Sequence[Histogram]) -> tuple[Edges, list[float]]:
    """Return the edges of the bins and the ticks; logarithmic if means differ more than tenfold."""
    inner = [TAIL, 1 - TAIL]
    ends = [np.interp(inner, below, own) for own, below in map(_cumulative, histograms)]
    low, high = float(np.min(ends)), float(np.max(ends))
    means = [one["mean"] for one in histograms]
    if low > 0 and max(means) > 10 * min(means):
        edges = np.geomspace(low, high, BINS + 1)
        ticks = LogLocator(subs=(1, 2, 5), numticks=5).tick_values(low, high)
    else:
        margin = 0.02 * (high - low)
        edges = np.linspace(low - margin, high + margin, BINS + 1)
        ticks = MaxNLocator(5).tick_values(low, high)
    return edges, [float(tick) for tick in ticks if edges[0] <= tick <= edges[-1]]


def _scale(edges: Edges) -> Callable[[float], float]:
    """Return a function to percent of the axis; values beyond its ends are moved to them."""
    return lambda value: round(float(np.interp(value, edges, np.linspace(0, 100, len(edges)))), 2)


def _ridge(arm: Arm, seeds: Sequence[Histogram], edges: Edges) -> Ridge:
    heights = np.mean([shares(seed, edges) for seed in seeds], axis=0)
    middle = mean(seed["mean"] for seed in seeds)
    return Ridge(arm, _outline(heights), middle, _scale(edges)(middle))


def _outline(heights: NDArray[np.float64]) -> str:
    """Return a path over 100 × 100 from the first to the last filled bin, scaled to its peak."""
    filled = np.flatnonzero(heights)
    bins = np.arange(filled[0], filled[-1] + 1)
    across = 100 * (bins + 0.5) / len(heights)
    up = 100 - 96 * heights[bins] / heights.max()
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return f"M{across[0]:.1f},100 L{points} {across[-1]:.1f},100"
