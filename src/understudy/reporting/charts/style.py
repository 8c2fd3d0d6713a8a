"""What charts share: colours, dash patterns, axes, scales, and SVG that fits into the page."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from understudy.reporting.results import Arm

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
"""Colours of the light theme; on the page, CSS variables of these names, with dark values too."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
"""Patterns that tell arms apart once the colours repeat."""
REFERENCE = {"linewidth": 1, "linestyle": DASHES[1]}
"""How a chart draws a line that is not an arm."""
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "understudy",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Chart:
    """A chart drawn by matplotlib: its title, how to read it, and the drawing."""

    title: str
    caption: str
    svg: str


def chart(
    title: str,
    caption: str,
    draw: Callable[[Any], None],
    *,
    label: str,
    xlabel: str,
    ylabel: str,
) -> Chart:
    """Return a chart for the page.

    Args:
        title: Title, unique in the page: it prefixes the ids of the drawing.
        caption: How to read the chart.
        draw: Draws the marks into the matplotlib axes that it gets.
        label: Text for screen readers.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the vertical one.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _style(axes, xlabel, ylabel)
        draw(axes)
        file = io.StringIO()
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=undated)
    return Chart(title, caption, _inline(file.getvalue(), title, label))


def line(axes: Any, arm: Arm, x: Sequence[float], y: Sequence[float], *, marker: str = "") -> None:
    """Draw a line in the colour and the dash pattern of an arm."""
    dash = DASHES[arm.dash % len(DASHES)]
    color = INKS[arm.ink]
    axes.plot(x, y, color=color, linestyle=dash, linewidth=1.6, marker=marker, markersize=4)


@dataclass(frozen=True)
class PercentAxis:
    """A horizontal axis of a chart that the page draws; positions are in percent of its width.

    Attributes:
        low: Value at 2 percent.
        high: Value at 98 percent.
        ticks: Position and text of each number on the axis.
    """

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        return _position(value, self.low, self.high)


def percent_axis(values: Sequence[float], *, signs: bool = False) -> PercentAxis:
    """Return the axis of some values.

    Args:
        values: What is drawn on it.
        signs: Write the numbers of differences, with their signs.
    """
    low, high = min(values), max(values)
    high = high if high > low else low + 1.0
    numbers = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [float(x) for x in numbers if low - 1e-9 <= x <= high + 1e-9]
    ticks = [(_position(x, low, high), _tick_text(x, signs=signs)) for x in inside]
    return PercentAxis(low, high, ticks)


def _position(value: float, low: float, high: float) -> float:
    return round(2 + 96 * (value - low) / (high - low), 2)


def _tick_text(value: float, *, signs: bool) -> str:
    text = f"{value:+g}" if signs and abs(value) > 1e-9 else f"{abs(value) if signs else value:g}"
    return text.replace("-", "−")


def _style(axes: Any, xlabel: str, ylabel: str) -> None:
    """Reduce the axes to a horizontal grid without a frame."""
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.grid(axis="y", color=INKS["line"], linewidth=0.7)
    axes.tick_params(which="both", length=0, colors=INKS["muted"])
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=INKS["muted"])
    axes.set_ylabel(ylabel, color=INKS["muted"], labelpad=9)  # narrow pages enlarge the numbers


def _inline(svg: str, title: str, label: str) -> str:
    """Return the drawing with the page's colours and font, and with ids that are unique in it."""
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
