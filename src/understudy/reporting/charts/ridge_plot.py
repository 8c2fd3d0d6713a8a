"""Distributions as one row for each arm: shapes in percent, which the page scales to its width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from understudy.reporting.results import Arm

GRID = 72
"""Bins of all rows of one picture."""
TAIL = 0.005
"""Share of an arm's images on either side that the axis may leave out."""

Histogram = dict[str, Any]
Edges = NDArray[np.float64]


@dataclass(frozen=True)
class Ridge:
    """One arm: the outline of its distribution, and the mean over images and seeds."""

    arm: Arm
    outline: str
    mean: float
    place: float
    """Of the mean, in percent."""


@dataclass(frozen=True)
class Ridges:
    """One picture; ticks are places in percent with their text."""

    title: str
    words: str
    rows: list[Ridge]
    reference: str
    """The teacher's outline, to draw behind the rows of the others; empty without one."""
    ticks: list[tuple[float, str]]


def ridges(title: str, words: str, found: Sequence[tuple[Arm, list[Histogram]]]) -> Ridges | None:
    """The distributions of some arms on one axis; None if none was measured.

    Args:
        title: Of the picture.
        words: What to look for.
        found: Each arm with one histogram for each seed.
    """
    shown = [(arm, seeds) for arm, seeds in found if seeds]
    if not any(arm.role != "teacher" for arm, _ in shown):
        return None
    edges, ticks = _axis([seed for _, seeds in shown for seed in seeds])
    rows = [_ridge(arm, seeds, edges) for arm, seeds in shown]
    reference = next((row.outline for row in rows if row.arm.role == "teacher"), "")
    place = _place(edges)
    return Ridges(title, words, rows, reference, [(place(tick), f"{tick:g}") for tick in ticks])


def shares(histogram: Histogram, edges: Edges) -> NDArray[np.float64]:
    """Share of the images between neighbouring edges, as if spread evenly within their own bins."""
    own, below = _cumulative(histogram)
    return np.diff(np.interp(edges, own, below))


def _cumulative(histogram: Histogram) -> tuple[Edges, Edges]:
    counts = np.asarray(histogram["counts"], dtype=np.float64)
    own = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
    return own, np.concatenate([[0.0], counts.cumsum()]) / counts.sum()


def _axis(histograms: Sequence[Histogram]) -> tuple[Edges, list[float]]:
    """Edges of the bins, and where to write a number; logarithmic where arms lie far apart."""
    inner = [TAIL, 1 - TAIL]
    ends = [np.interp(inner, below, own) for own, below in map(_cumulative, histograms)]
    low, high = float(np.min(ends)), float(np.max(ends))
    means = [one["mean"] for one in histograms]
    if low > 0 and max(means) > 10 * min(means):
        edges = np.geomspace(low, high, GRID + 1)
        ticks = LogLocator(subs=(1, 2, 5), numticks=5).tick_values(low, high)
    else:
        margin = 0.02 * (high - low)
        edges = np.linspace(low - margin, high + margin, GRID + 1)
        ticks = MaxNLocator(5).tick_values(low, high)
    return edges, [float(tick) for tick in ticks if edges[0] <= tick <= edges[-1]]


def _place(edges: Edges) -> Callable[[float], float]:
    """Percent of the axis; the mean of a far arm stays on it."""
    return lambda value: round(float(np.interp(value, edges, np.linspace(0, 100, len(edges)))), 2)


def _ridge(arm: Arm, seeds: Sequence[Histogram], edges: Edges) -> Ridge:
    heights = np.mean([shares(seed, edges) for seed in seeds], axis=0)
    middle = mean(seed["mean"] for seed in seeds)
    return Ridge(arm, _outline(heights), middle, _place(edges)(middle))


def _outline(heights: NDArray[np.float64]) -> str:
    """A path over 100 × 100 from the first to the last bin, as high as its own peak."""
    filled = np.flatnonzero(heights)
    bins = np.arange(filled[0], filled[-1] + 1)
    across = 100 * (bins + 0.5) / len(heights)
    up = 100 - 96 * heights[bins] / heights.max()
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return f"M{across[0]:.1f},100 L{points} {across[-1]:.1f},100"
