"""Render comparisons of fine-tuned students as an HTML page, in Markdown, and for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.box import SIMPLE_HEAD
from rich.table import Table

from understudy.checks.finding import Finding
from understudy.comparison.finetune import ALL, FinetuneComparison
from understudy.comparison.result import Comparison
from understudy.experiment.plain_table import count, difference, escaped, spread
from understudy.experiment.plain_table import markdown as markdown_of_rows
from understudy.reporting.charts.labels_curve import Point, labels_curve
from understudy.reporting.collect import of_comparison
from understudy.reporting.columns import name
from understudy.reporting.headline import VERDICTS
from understudy.reporting.next_steps import Step
from understudy.reporting.results import Arm
from understudy.reporting.several_page import render

COLUMNS = {
    "labels": "training images with a label; the others are not used",
    "arm": "control: the student that was not distilled; others: how it was distilled before",
    "difference": "mean difference from the control with the same labels, with its 95 % interval",
    "verdict": "about that difference, corrected for the number of arms",
}
"""Column → meaning."""


@dataclass(frozen=True)
class Line:
    """A row of the table: one arm with one number of labels."""

    labels: int
    arm: Arm


def lines(result: FinetuneComparison) -> list[Line]:
    """Return the rows, by the number of labels."""
    rows = [
        Line(_labels(part, comparison), arm)
        for part in result.folders
        for comparison in [result.comparison(part)]
        for arm in of_comparison(comparison.to_dict(), root=Path(comparison)).arms
    ]
    return sorted(rows, key=lambda line: line.labels)


def _labels(part: str, comparison: Comparison) -> int:
    """Return the number of labels of a comparison."""
    if part != ALL:
        return int(part)
    first = next(run for arm in comparison.arms for run in comparison.runs(arm["name"]))
    return int(first.splits["train"]["images"])


def cells(result: FinetuneComparison, rows: Sequence[Line]) -> list[list[str]]:
    """Return header and rows as text."""
    metric = result.metric
    header = ["labels", "arm", name(metric), "difference", "verdict"]
    return [
        header,
        *(
            [
                count(row.labels),
                row.arm.name,
                spread(row.arm.values(metric), 2) or "–",
                difference(row.arm.verdict, 2) or "–",
                VERDICTS.get(row.arm.word, row.arm.word) or "–",
            ]
            for row in rows
        ),
    ]


def title(result: FinetuneComparison, rows: Sequence[Line]) -> str:
    """Return in a sentence where distilling was worth something."""
    better = [row for row in rows if row.arm.word == "gain"]
    words = {row.arm.word for row in rows if row.arm.verdict}
    if words == {"too few seeds"}:
        return "No verdict: fewer than three seeds cannot tell an effect from chance."
    if not better:
        return "With none of these numbers of labels was an arm proven better than the control."
    parts = dict[int, list[str]]()
    for row in better:
        parts.setdefault(row.labels, []).append(row.arm.name)
    listed = [f"with {count(labels)} labels by {', '.join(arms)}" for labels, arms in parts.items()]
    return f"Better than without distilling {'; '.join(listed)}."


def page(
    result: FinetuneComparison,
    rows: Sequence[Line],
    cautions: Sequence[Finding],
    steps: Sequence[Step],
) -> str:
    """Return the page as HTML that loads nothing else; see `several_page.render`."""
    return render(
        result,
        rows,
        cells(result, rows),
        columns=COLUMNS,
        cautions=cautions,
        steps=steps,
        part="number of labels",
        marks=False,
        title=title(result, rows),
        deck="",
        chart=labels_curve(list(_points(rows, result.metric)), result.metric),
        speeds=[],
    )


def _points(rows: Sequence[Line], metric: str) -> Iterator[Point]:
    for row in rows:
        if values := row.arm.values(metric):
            deviation = stdev(values) if len(values) > 1 else 0.0
            yield Point(row.labels, row.arm, mean(values), deviation)


def markdown(result: FinetuneComparison, rows: Sequence[Line]) -> str:
    """Return headline and table as Markdown."""
    header, *text = cells(result, rows)
    table = markdown_of_rows([header, *([escaped(cell) for cell in row] for row in text)])
    return "\n\n".join(
        [f"# {escaped(result.name)}", f"**{escaped(title(result, rows))}**", table + "\n"]
    )


def terminal_table(result: FinetuneComparison) -> Table:
    """Return the table for the terminal."""
    header, *text = cells(result, lines(result))
    grid = Table(title=result.name, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for place, heading in enumerate(header):
        grid.add_column(heading, justify="left" if place in (1, 4) else "right", no_wrap=True)
    for row in text:
        grid.add_row(*row)
    return grid
