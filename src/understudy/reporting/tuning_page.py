"""Render a search as an HTML page, and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from understudy.checks.examine import Examination
from understudy.checks.finding import Finding
from understudy.experiment.progress import number_text
from understudy.reporting.before_training import made
from understudy.reporting.charts.style import INKS, percent_axis
from understudy.reporting.columns import with_unit
from understudy.reporting.html import environment
from understudy.reporting.next_steps import Step
from understudy.tuning.result import JUDGED, Tuning

_SHOWN_IN_TERMINAL = 10
"""Trials in the table of the terminal; the page has all."""


@dataclass(frozen=True)
class Line:
    """A row of the chart; all positions are in percent of its width.

    Attributes:
        name: What the trial tries.
        dots: Place and epoch of the score at every rung that it reached.
        chosen: Whether the search chose it.
        text: The scores in words.
    """

    name: str
    dots: list[tuple[float, int]]
    chosen: bool
    text: str


def page(
    result: Tuning,
    examinations: Mapping[str, Examination],
    cautions: Sequence[Finding],
    steps: Sequence[Step],
) -> str:
    """Return the page as HTML that loads nothing else.

    Args:
        result: The search.
        examinations: Title → what the doctor said before it.
        cautions: What limits its numbers.
        steps: Commands that come next.
    """
    comparison, (rows, ticks) = result.comparison, lines(result)
    return (
        environment()
        .get_template("tuning.html.j2")
        .render(
            cautions=cautions,
            steps=steps,
            result=result,
            metric=with_unit(result.metric),
            inks=INKS,
            lines=rows,
            ticks=ticks,
            judged=comparison.cells() if comparison else [],
            verdicts=_verdicts(result),
            folder=JUDGED,
            examinations=examinations,
            made=made,
        )
    )


def _verdicts(result: Tuning) -> list[str]:
    comparison = result.comparison
    arms = comparison.arms if comparison else []
    return [arm["verdict"]["sentence"] for arm in arms if arm["verdict"]]


def lines(result: Tuning) -> tuple[list[Line], list[tuple[float, str]]]:
    """Return the chart of the trials with a score, the best first, and the ticks of its axis."""
    scored = [trial for trial in result.ranked() if _scores(trial)]
    values = [score for trial in scored for score in _scores(trial).values()]
    place = percent_axis(values or [0.0])
    drawn = [
        Line(
            name=trial["text"],
            dots=[(place(score), epoch) for epoch, score in _scores(trial).items()],
            chosen=trial["number"] == result.winner,
            text=", ".join(
                f"{number_text(score)} after epoch {epoch}"
                for epoch, score in _scores(trial).items()
            ),
        )
        for trial in scored
    ]
    return drawn, place.ticks


def _scores(trial: dict[str, Any]) -> dict[int, float]:
    return {int(epoch): x for epoch, x in trial["scores"].items() if x is not None}


def terminal_table(result: Tuning) -> Table:
    """Return the table of the best trials."""
    header, *rows = result.cells()
    grid = Table(title=result.name, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for place, title in enumerate(header):
        grid.add_column(title, justify="left" if place == 1 else "right", no_wrap=place != 1)
    for row in rows[:_SHOWN_IN_TERMINAL]:
        grid.add_row(*row)
    left = len(rows) - _SHOWN_IN_TERMINAL
    grid.caption = f"and {left} more trials, in the report" if left > 0 else None
    return grid
