"""Reports on a comparison or on runs: an HTML page, Markdown, and tables for the terminal."""

import os
from collections.abc import Sequence
from pathlib import Path

from understudy.files import write
from understudy.reporting.collect import read
from understudy.reporting.page import markdown, page
from understudy.reporting.tables import evaluation_table, terminal_table

__all__ = ["evaluation_table", "report", "terminal_table"]


def report(paths: str | Path | Sequence[str | Path], *, out: str | Path | None = None) -> Path:
    """Write `report.html` and `report.md` for a comparison directory or for run directories.

    Args:
        paths: One comparison directory, or one or several run directories.
        out: Directory to write to, or the `.html` file, with the Markdown next to it. Default: the
            directory itself; for several runs, the closest directory that holds them all.

    Returns:
        Path of the page, a single file that loads no other.

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
