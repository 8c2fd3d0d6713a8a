"""Curves over training: drawn by matplotlib, coloured by the page's CSS, inlined as SVG."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from matplotlib.ticker import MaxNLocator, NullFormatter

from understudy.experiment.run_directory import Run
from understudy.reporting.charts.style import DASHES, INKS, drawn
from understudy.reporting.columns import name
from understudy.reporting.results import Arm, Results


@dataclass(frozen=True)
class Curve:
    """One chart: its title, three words on how to read it, and the drawing."""

    title: str
    words: str
    svg: str


@dataclass(frozen=True)
class _Band:
    """Mean, smallest and largest value over the seeds, at the epochs that every seed evaluated."""

    epochs: list[int]
    middle: list[float]
    low: list[float]
    high: list[float]


def curves(results: Results) -> list[Curve]:
    """Every chart that has something to show."""
    lower = results.metric == "loss"
    metric = name(results.metric)
    teacher = results.teacher.values(results.metric) if results.teacher else []
    group = "fidelity" if results.judges_fidelity else "metrics"
    better = f"{'lower' if lower else 'higher'} is better"
    charts = [
        (f"Held-out {metric}", better, group, results.metric, teacher[0] if teacher else None),
        ("Direction (cosine)", "one is parallel", "fidelity", "cosine", None),
        ("Norm (ratio)", "one is equal", "fidelity", "norm_ratio", 1.0),
        ("Total loss", "each arm's own", "losses", "total", None),
    ]
    found = []
    for title, words, group, key, level in charts:
        bands = {arm.name: band(arm.runs, group, key) for arm in results.arms if arm.runs}
        bands = {name: band for name, band in bands.items() if band.epochs}
        if bands:
            svg = _draw(results.arms, bands, title=title, level=level)
            found.append(Curve(title, words, svg))
    return found


def band(runs: Sequence[Run], group: str, key: str) -> _Band:
    """One value over the epochs, over all runs of an arm."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for record in run.history:
            value = (record[group] or {}).get(key)
            if value is not None and math.isfinite(value):
                values[record["epoch"]].append(value)
    shared = {epoch: v for epoch, v in sorted(values.items()) if len(v) == len(runs)}
    rows = shared.values()
    return _Band(
        list(shared), [mean(v) for v in rows], [min(v) for v in rows], [max(v) for v in rows]
    )


def _draw(arms: Sequence[Arm], bands: dict[str, _Band], *, title: str, level: float | None) -> str:
    def draw(axes: Any) -> None:
        for arm in (arm for arm in arms if arm.name in bands):
            _line(axes, arm, bands[arm.name])
        if level is not None:
            axes.axhline(level, color=INKS["teacher"], linewidth=1, linestyle=DASHES[1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        _zoom(axes, list(bands.values()), level)

    return drawn(draw, title=title, label=f"{title} over the epochs", xlabel="epoch")


def _line(axes: Any, arm: Arm, band: _Band) -> None:
    marker = "o" if len(band.epochs) <= 3 else ""
    axes.plot(
        band.epochs,
        band.middle,
        color=INKS[arm.ink],
        linestyle=DASHES[arm.dash % len(DASHES)],
        linewidth=1.6,
        marker=marker,
        markersize=4,
    )
    if len(arm.runs) > 1:
        color = INKS[arm.ink]
        axes.fill_between(band.epochs, band.low, band.high, color=color, alpha=0.16, linewidth=0)


def _zoom(axes: Any, bands: Sequence[_Band], level: float | None) -> None:
    """Leave the steep first tenth of training outside, so that the ends can be told apart."""
    late = [v for b in bands for ends in (b.low, b.high) for v in ends[len(ends) // 10 :]]
    if level is not None:
        late.append(level)
    if min(late) > 0 and max(late) > 20 * min(late):
        axes.set_yscale("log")
        # Powers such as 10³ are set glyph by glyph, which ignores the page's font and its size.
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    bottom, top = axes.get_ylim()
    margin = 0.05 * (max(late) - min(late))
    if margin == 0:
        return
    axes.set_ylim(max(bottom, min(late) - margin), min(top, max(late) + margin))
