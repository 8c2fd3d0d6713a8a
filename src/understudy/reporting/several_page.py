"""Render a page on several comparisons, which `several.html.j2` lays out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from understudy.checks.finding import Finding
from understudy.comparison.several import SeveralComparisons
from understudy.reporting.charts.style import INKS
from understudy.reporting.columns import name
from understudy.reporting.html import environment
from understudy.reporting.next_steps import Step
from understudy.reporting.results import Arm


class Line(Protocol):
    """A row of the table, about one arm."""

    @property
    def arm(self) -> Arm:
        """Return the arm."""


def render(
    comparisons: SeveralComparisons,
    lines: Sequence[Line],
    cells: Sequence[Sequence[str]],
    *,
    columns: Mapping[str, str],
    cautions: Sequence[Finding],
    steps: Sequence[Step],
    **own: Any,
) -> str:
    """Return the page as HTML that loads nothing else.

    Args:
        comparisons: What the page is about.
        lines: Rows of the table.
        cells: Its text, the header first.
        columns: Column → meaning, but for that of the metric.
        cautions: What limits its numbers.
        steps: Commands that come next.
        own: What the template needs besides, which differs between the kinds of comparisons.
    """
    header, *text = cells
    return (
        environment()
        .get_template("several.html.j2")
        .render(
            name=comparisons.name,
            parts=comparisons.KEY,
            inks=INKS,
            arms=list({line.arm.name: line.arm for line in lines}.values()),
            header=header,
            rows=list(zip(lines, text, strict=True)),
            columns={name(comparisons.metric): "mean ± standard deviation over the seeds"}
            | dict(columns),
            links={part: f"{folder}/report.html" for part, folder in comparisons.folders.items()},
            cautions=cautions,
            steps=steps,
            **own,
        )
    )
