"""Small tables of results: cells as text, tables as Markdown, HTML and pandas data frames."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from understudy.errors import UnderstudyError

if TYPE_CHECKING:
    from pandas import DataFrame

Rows = Sequence[Sequence[str]]
"""Cells as text, the header first; every row is as long as the header."""


def markdown(rows: Rows) -> str:
    """Return a table in Markdown with its columns aligned, all but the first to the right.

    >>> print(markdown([["arm", "top1"], ["control", "70.1"]]))
    | arm     | top1 |
    | ------- | ---: |
    | control | 70.1 |
    """
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_aligned(row, widths) for row in [header, rule, *body])


def escaped(text: str) -> str:
    r"""Return text as Markdown that shows it as it is, whatever it holds.

    >>> print(escaped("kd*2 [/x] <b>, nd_1"))
    kd\*2 \[/x\] \<b\>, nd_1
    """
    one_line = " ".join(text.split())
    # An underscore inside of a word is one to Markdown too, and the bar is for `markdown`.
    return re.sub(r"[\\`*\[\]<>~#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", one_line)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
    return f"| {' | '.join(cells)} |"


def html(rows: Rows, *, caption: str = "") -> str:
    """Return a table in HTML without styles of its own, for a notebook."""
    header, *body = rows
    lines = [f"<caption>{escape(caption)}</caption>"] if caption else []
    lines.append(f"<thead>{_html_row(header, 'th')}</thead>")
    lines.append(f"<tbody>{''.join(_html_row(row, 'td') for row in body)}</tbody>")
    return f"<table>{''.join(lines)}</table>"


def _html_row(row: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"


def frame(records: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Return a data frame with one row per record.

    Raises:
        UnderstudyError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise UnderstudyError(
            "A data frame needs pandas, which is not installed: pip install pandas."
        ) from error
    return DataFrame(list(records))


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean ± standard deviation over the seeds; empty without values.

    >>> spread([70.0, 71.0], 2)
    '70.50 ± 0.71'
    """
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def difference(verdict: Mapping[str, Any] | None, digits: int) -> str:
    """Return the difference from the control with its interval; empty for the control itself."""
    if verdict is None:
        return ""
    if verdict["difference"] is None:
        return str(verdict["word"])
    value, low, high = (verdict[key] for key in ("difference", "low", "high"))
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return signed(value, digits) + ends.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, with a typographic minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """Return a share in percent with a typographic minus; empty for None."""
    return "" if share is None else f"{100 * share:.1f} %".replace("-", "−")


def count(number: int) -> str:
    """Return a count with three digits, such as `1.23 M`."""
    if number < 1000:
        return str(number)
    return f"{number / 1e6:.3g} M" if number >= 999_500 else f"{number / 1e3:.3g} k"
