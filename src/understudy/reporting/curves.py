"""Curves over training: drawn by matplotlib, coloured by the page's CSS, inlined as SVG."""

import io
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from understudy.reporting.columns import name
from understudy.reporting.read import Run
from understudy.reporting.results import Arm, Results

INKS = {
    "c0": "#0072b2",
    "c1": "#d55e00",
    "c2": "#009e73",
    "c3": "#aa4499",
    "c4": "#b58900",
    "c5": "#56b4e9",
    "c6": "#882255",
    "control": "#70757d",
    "teacher": "#1b1e23",
    "muted": "#5d646c",
    "line": "#dfe2e6",
}
"""Marks in the drawing; each becomes the CSS variable of its name, which has a dark form too."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
"""Patterns that tell arms apart once the colours repeat."""
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "understudy",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.unicode_minus": True,
}


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
    drawn = []
    for title, words, group, key, level in charts:
        bands = {arm.name: band(arm.runs, group, key) for arm in results.arms if arm.runs}
        bands = {name: found for name, found in bands.items() if found.epochs}
        if bands:
            svg = _draw(results.arms, bands, title=title, level=level)
            drawn.append(Curve(title, words, svg))
    return drawn


def band(runs: Sequence[Run], group: str, key: str) -> _Band:
    """One value over the epochs, over all runs of an arm."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for record in run.epochs:
            value = (record[group] or {}).get(key)
            if value is not None and math.isfinite(value):
                values[record["epoch"]].append(value)
    shared = {epoch: v for epoch, v in sorted(values.items()) if len(v) == len(runs)}
    rows = shared.values()
    return _Band(
        list(shared), [mean(v) for v in rows], [min(v) for v in rows], [max(v) for v in rows]
    )


def _draw(arms: Sequence[Arm], bands: dict[str, _Band], *, title: str, level: float | None) -> str:
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for arm in (arm for arm in arms if arm.name in bands):
            _line(axes, arm, bands[arm.name])
        if level is not None:
            axes.axhline(level, color=INKS["teacher"], linewidth=1, linestyle=DASHES[1])
        _dress(axes)
        _zoom(axes, list(bands.values()), level)
        file = io.StringIO()
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=undated)
    return _inline(file.getvalue(), title)


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


def _dress(axes: Any) -> None:
    """Only what helps reading: a horizontal grid, whole epochs, no frame."""
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.grid(axis="y", color=INKS["line"], linewidth=0.7)
    axes.tick_params(which="both", length=0, colors=INKS["muted"])
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", color=INKS["muted"])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


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


def _inline(svg: str, title: str) -> str:
    """A drawing that belongs to the page: its colours, its font, no link to anywhere."""
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"| version="1.1"', "", svg)
    svg = svg.replace("xlink:href", "href").replace(' id="', f' id="{prefix}-')
    svg = svg.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'font[a-z-]*: [^;"]*;? ?', "", svg)
    for variable, ink in INKS.items():
        svg = svg.replace(ink, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title} over the epochs"', 1)
