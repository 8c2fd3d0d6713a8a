"""The columns of the results, said once, shown in the terminal, in Markdown and in the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from understudy.report.results import Arm, Numbers, Results, duration, of_comparison

NONE = "–"
NAMES = {"top1": "top-1", "top5": "top-5", "map": "mAP"}
"""Metrics that are written differently from their key."""


@dataclass(frozen=True)
class Column:
    """One column: its title, its cell for an arm (empty where there is nothing), its meaning."""

    title: str
    cell: Callable[[Arm], str]
    meaning: str
    brief: bool = False
    """Shown in the terminal too, where a line has 80 characters."""


def columns(results: Results) -> list[Column]:
    """The columns in which at least one arm has something to show."""
    return [c for c in _columns(results.metric) if any(c.cell(arm) for arm in results.arms)]


def _columns(metric: str) -> list[Column]:
    spread = "mean over the seeds ± standard deviation between them"
    return [
        Column(
            NAMES.get(metric, metric),
            lambda arm: _spread(arm.metrics.get(metric)),
            spread,
            brief=True,
        ),
        Column(
            "difference",
            _difference,
            "distance from the control and its 95 % interval by the paired t-test over the seeds, "
            "each method by itself: among many methods the best one is flattered",
            brief=True,
        ),
        Column(
            "gap closed",
            lambda arm: _percent((arm.verdict or {}).get("gap_closed")),
            "(student − control) / (teacher − control): 100 % is the teacher",
            brief=True,
        ),
        Column(
            "agreement",
            lambda arm: _percent(_mean(arm.fidelity.get("agreement"))),
            "share of the images on which student and teacher give the same answer",
        ),
        _fidelity(
            "cosine",
            "direction: cosine between the penultimate features of both networks",
            brief=True,
        ),
        _fidelity("norm_ratio", "length of the student's feature over the teacher's; 1 is equal"),
        _fidelity(
            "cka",
            "likeness of the geometry of both feature spaces, from 0 to 1, whatever their size",
        ),
        _fidelity("kl", "distance of the student's probabilities from the teacher's; 0 is equal"),
        Column("time", _time, "training time of one seed", brief=True),
        Column("memory", _memory, "peak memory of training"),
        Column(
            "parameters",
            _parameters,
            "of the student as it is deployed; in brackets what is trained beside it and dropped",
        ),
    ]


def _fidelity(key: str, meaning: str, *, brief: bool = False) -> Column:
    title = {"norm_ratio": "norm ratio", "cka": "CKA", "kl": "KL"}.get(key, key)
    return Column(title, lambda arm: _number(_mean(arm.fidelity.get(key))), meaning, brief)


def table(results: Results, *, brief: bool = False) -> list[list[str]]:
    """Header and rows as text, arms first; `brief` keeps what fits into a terminal."""
    shown = [column for column in columns(results) if column.brief or not brief]
    rows = [[arm.name, *(c.cell(arm) or NONE for c in shown)] for arm in results.arms]
    return [["arm", *(c.title for c in shown)], *rows]


def markdown_table(results: Results) -> str:
    """The table in Markdown, its columns aligned in the source too."""
    header, *rows = table(results)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_markdown_row(row, widths) for row in [header, rule, *rows])


def _markdown_row(row: list[str], widths: list[int]) -> str:
    first, *rest = (cell.replace("|", "\\|") for cell in row)
    cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
    return f"| {' | '.join(cells)} |"


def terminal_table(comparison: Mapping[str, Any] | Results) -> Table:
    """The content of a `comparison.json` as a table for the terminal: the columns that fit."""
    results = comparison if isinstance(comparison, Results) else of_comparison(comparison)
    header, *rows = table(results, brief=True)
    shown = Table(title=results.name, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for place, title in enumerate(header):
        shown.add_column(title, justify="right" if place else "left", no_wrap=True)
    for arm, row in zip(results.arms, rows, strict=True):
        shown.add_row(*row, style=_style(arm))
    return shown


def _style(arm: Arm) -> str:
    if arm.role in ("teacher", "control"):
        return "dim"
    return {"gain": "green", "loss": "red"}.get((arm.verdict or {}).get("word", ""), "")


def _difference(arm: Arm) -> str:
    if arm.verdict is None:
        return ""
    difference, low, high = (arm.verdict[key] for key in ("difference", "low", "high"))
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]".replace("-", "−")
    return signed(difference) + ends


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, typeset with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _spread(values: Numbers | None) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _mean(values: Numbers | None) -> float | None:
    return mean(values) if values else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %".replace("-", "−")


def _time(arm: Arm) -> str:
    return duration(mean(arm.seconds)) if arm.seconds else ""


def _memory(arm: Arm) -> str:
    if not arm.memory_mb:
        return ""
    peak = max(arm.memory_mb)
    return f"{peak:.0f} MB" if peak < 1000 else f"{peak / 1000:.1f} GB"


def _parameters(arm: Arm) -> str:
    if arm.parameters is None:
        return ""
    beside = (arm.train_parameters or arm.parameters) - arm.parameters
    return count(arm.parameters) + (f" (+{count(beside)})" if beside > 0 else "")


def count(number: int) -> str:
    """A count with three digits, such as `1.23 M`."""
    if number < 1000:
        return str(number)
    return f"{number / 1e6:.3g} M" if number >= 999_500 else f"{number / 1e3:.3g} k"
