"""What all charts of matplotlib share: inks, patterns, dress, and the way into the page."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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


def drawn(draw: Callable[[Any], None], *, title: str, label: str, xlabel: str) -> str:
    """A chart for the page.

    Args:
        draw: Puts the marks into the axes.
        title: Tells the parts of this drawing from those of others in the page.
        label: What a reader who cannot see it is told.
        xlabel: What lies on the horizontal axis.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _dress(axes, xlabel)
        draw(axes)
        file = io.StringIO()
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=undated)
    return _inline(file.getvalue(), title, label)


def _dress(axes: Any, xlabel: str) -> None:
    """Only what helps reading: a horizontal grid, no frame."""
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.grid(axis="y", color=INKS["line"], linewidth=0.7)
    axes.tick_params(which="both", length=0, colors=INKS["muted"])
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=INKS["muted"])


def _inline(svg: str, title: str, label: str) -> str:
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
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
