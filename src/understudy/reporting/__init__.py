"""A comparison or some runs → one self-contained page, Markdown, and a table for the terminal."""

import os
from collections.abc import Sequence
from pathlib import Path

from understudy.files import write
from understudy.reporting.collect import read
from understudy.reporting.page import markdown, page
from understudy.reporting.tables import evaluation_table, terminal_table

__all__ = ["evaluation_table", "report", "terminal_table"]


def report(paths: str | Path | Sequence[str | Path], *, out: str | Path | None = None) -> Path:
    """Write `report.html` and `report.md` on a comparison directory or on run directories.

    Args:
        paths: One comparison directory, or one or several run directories.
        out: Directory to write into, or the `.html` file; the Markdown goes beside it. By default
            the directory itself, for several runs the closest directory that holds them all.

    Returns:
        The page, a single file that loads nothing from anywhere.

    Raises:
        RunError: A directory is missing or damaged, or comparisons and runs are mixed.
    """
    several = [paths] if isinstance(paths, str | Path) else paths
    folders = [Path(path) for path in several]
    results = read(folders)
    file = Path(out) if out else Path(os.path.commonpath([f.resolve() for f in folders]))
    if file.suffix != ".html":
        file = file / "report.html"
    write(file, page(results))
    write(file.with_suffix(".md"), markdown(results))
    return file
