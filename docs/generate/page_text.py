"""Text of pages: what a mark in one page takes from another, and cells of tables."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
"""A fenced block."""
INCLUDE = re.compile(r"^<!-- include: (\S+): (.+) -->$", re.MULTILINE)
"""`<!-- include: PAGE: SECTION -->`, in whose place the first block of that section stands."""


def with_includes(text: str) -> str:
    """Return a page with blocks of other pages in place of the marks that name them.

    Raises:
        LookupError: A page has no such section, or the section no block.
    """
    return INCLUDE.sub(_block_of_section, text)


def _block_of_section(mark: re.Match[str]) -> str:
    _, _, rest = (ROOT / mark[1]).read_text(encoding="utf-8").partition(f"\n## {mark[2]}\n")
    fence = FENCE.search(rest.partition("\n## ")[0])
    if fence is None:
        raise LookupError(f"{mark[1]} has no block in a section {mark[2]!r}.")
    return fence[0]


def cell(text: str) -> str:
    """Return text as Markdown that shows it as it is in a cell of a table."""
    return text.replace("|", r"\|").replace("<", "&lt;")
