"""Size and latency of networks in a report: a part of its page, Markdown, and for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from understudy.deployment.speed.latency import Speeds
from understudy.deployment.speed.speed_table import facts, notes, speed_columns, speed_rows
from understudy.experiment.plain_table import escaped, markdown


@dataclass(frozen=True)
class SpeedSection:
    """Part of a page: one table of size and latency."""

    title: str
    facts: str
    header: list[str]
    rows: list[list[str]]
    notes: Sequence[str]
    meanings: dict[str, str]


def section(speeds: Speeds, title: str = "Size and latency") -> SpeedSection:
    """Return the part of a page on some networks."""
    header, *rows = speed_rows(speeds)
    meanings = {column.title: column.meaning for column in speed_columns(speeds)}
    return SpeedSection(title, facts(speeds), header, rows, notes(speeds), meanings)


def markdown_section(speeds: Speeds) -> str:
    """Return the table with its facts and notes in Markdown."""
    rows = [[escaped(cell) for cell in row] for row in speed_rows(speeds)]
    lines = "\n".join(f"- {escaped(note)}" for note in notes(speeds))
    return "\n\n".join(filter(None, [escaped(facts(speeds)), markdown(rows), lines]))


def terminal_speeds(speeds: Speeds) -> Table:
    """Return the table for a terminal, with a column for every network."""
    (_, *titles), *rows = speed_rows(speeds)
    grid = Table(box=SIMPLE_HEAD, show_edge=False)
    grid.add_column("network of")
    for names, *_ in rows:
        grid.add_column(Text(names), justify="right")
    for title, *cells in zip(titles, *(row[1:] for row in rows), strict=True):
        grid.add_row(title, *map(Text, cells))
    return grid
