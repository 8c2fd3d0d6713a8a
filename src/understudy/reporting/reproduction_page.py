"""Render a reproduction as an HTML page, and as a table for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from understudy.experiment.plain_table import signed, spread
from understudy.reporting.charts.style import INKS, PercentAxis, percent_axis
from understudy.reporting.columns import name
from understudy.reporting.html import environment
from understudy.reporting.tables import NONE
from understudy.reproduction.result import Reproduction

_WORDS = {"within 2 sd": "gain", "outside 2 sd": "loss", "cannot be said": ""}
"""Mark → class of the stylesheet."""

COLUMNS = {
    "published": "figure of the paper, with its standard deviation where it is published",
    "published protocol": "how that figure was made: the shipped recipe, the epoch it was read at, "
    "and the number of runs it is the mean of",
    "ours": "mean ± standard deviation over n seeds, of the epoch that was published; of the last "
    "where that is not stated",
    "difference": "ours minus published, in points",
    "2 sd": "whether that is within two standard deviations of single runs: the published one, "
    "ours of at least three seeds, or the root of the mean of both variances",
    "ours differs by": "keys of the recipe, seeds and teacher that are not as published, and what "
    "is known to differ in any case",
}
"""Column → meaning."""


@dataclass(frozen=True)
class Line:
    """A row of the chart; all positions are in percent of its width.

    Attributes:
        name: Name of the row.
        mark: What is said of it.
        word: Class of the mark in the stylesheet.
        zero: Place of the published figure.
        band: Start and width of two standard deviations to both sides of it; None if unknown.
        dot: Place of our mean.
        seeds: Places of our seeds.
        text: The numbers.
    """

    name: str
    mark: str
    word: str
    zero: float
    band: tuple[float, float] | None
    dot: float
    seeds: list[float]
    text: str


def page(result: Reproduction) -> str:
    """Return the page as HTML that loads nothing else."""
    header, *rows = result.cells()
    rows_of_chart, ticks = lines(result)
    header[1] = f"published {name(result.metric)}"
    return (
        environment()
        .get_template("reproduction.html.j2")
        .render(
            result=result,
            title=title(result),
            deck=deck(result),
            inks=INKS,
            header=header,
            rows=list(zip(result.rows, rows, strict=True)),
            lines=rows_of_chart,
            ticks=ticks,
            words=_WORDS,
            columns=COLUMNS,
            unfinished=[row for row in result.rows if row["state"] != "finished"],
        )
    )


def title(result: Reproduction) -> str:
    """Return what came of it in a sentence."""
    marks = [row["mark"] for row in result.rows]
    judged = len(marks) - marks.count("cannot be said")
    if not judged:
        return f"No row of {result.table} can be judged yet."
    within = marks.count("within 2 sd")
    return (
        f"{within} of {judged} rows of {result.table} lie within two standard deviations of their "
        "published figure."
    )


def deck(result: Reproduction) -> str:
    """Return why other rows are not judged; empty if all are."""
    reasons = [row["reason"] for row in result.rows if row["mark"] == "cannot be said"]
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    words = [f"{reason}, {count} row{'s' * (count != 1)}" for reason, count in counts.items()]
    return f"Not judged: {'; '.join(words)}." if words else ""


def lines(result: Reproduction) -> tuple[list[Line], list[tuple[float, str]]]:
    """Return the chart of differences, of the rows that have one, and the ticks of its axis."""
    measured = [row for row in result.rows if row["scores"] and row["published"]["figure"]]
    ends = [end for row in measured for end in _ends(row)]
    reach = max((abs(end) for end in ends), default=0.0) or 1.0
    place = percent_axis([-reach, reach], signs=True)
    return [_line(row, place(0), place) for row in measured], place.ticks


def _ends(row: dict[str, Any]) -> Iterator[float]:
    yield from (score - row["published"]["figure"] for score in row["scores"])
    yield 2 * (row["deviation"] or 0.0)


def _line(row: dict[str, Any], zero: float, place: PercentAxis) -> Line:
    figure, deviation = row["published"]["figure"], row["deviation"]
    low, high = (place(side * (deviation or 0.0)) for side in (-2, 2))
    return Line(
        name=row["name"],
        mark=row["mark"],
        word=_WORDS[row["mark"]],
        zero=zero,
        band=None if deviation is None else (low, round(high - low, 2)),
        dot=place(mean(row["scores"]) - figure),
        seeds=[place(score - figure) for score in row["scores"]],
        text=f"{_ours(row['scores'])} where {row['published']['text']} is published: "
        f"{row['reason']}.",
    )


def _ours(scores: Sequence[float]) -> str:
    count = len(scores)
    return f"{spread(scores, 2)} over {count} seed{'s' * (count != 1)}"


def terminal_table(result: Reproduction) -> Table:
    """Return the table with the columns that fit into a terminal."""
    grid = Table(title=result.table, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    grid.add_column("row", no_wrap=True)
    for column in (f"published {name(result.metric)}", "ours", "n", "difference", "2 sd"):
        grid.add_column(column, justify="right")
    for row in result.rows:
        figure, scores = row["published"]["figure"], row["scores"]
        distance = signed(mean(scores) - figure) if scores and figure is not None else NONE
        mark = row["mark"] if scores else row["state"]
        ours = spread(scores, 2) or NONE
        published = row["published"]["text"] or NONE
        grid.add_row(row["name"], published, ours, str(len(scores)), distance, mark)
    return grid
