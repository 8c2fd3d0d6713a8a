"""Reports on comparisons, reproductions and runs: a page, Markdown, and tables for the terminal."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from understudy.comparison.finetune import FinetuneComparison
from understudy.comparison.students import StudentComparison
from understudy.files import write
from understudy.reporting import finetune_page, reproduction_page, students_page, tuning_page
from understudy.reporting.before_training import examinations, with_examinations
from understudy.reporting.cautions import cautions, cautions_of
from understudy.reporting.collect import read
from understudy.reporting.next_steps import next_steps
from understudy.reporting.page import markdown, page
from understudy.reporting.speeds import speeds_of_students, with_speeds
from understudy.reporting.tables import evaluation_table, terminal_table
from understudy.reproduction import result as reproduction
from understudy.tuning import result as tuning

__all__ = ["evaluation_table", "report", "terminal_table"]


def report(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    out: str | Path | None = None,
    trust: bool = False,
) -> Path:
    """Write `report.html` and `report.md` for a comparison, a reproduction or runs.

    Size and latency of the networks are measured when the report is written first, and kept in
    `speed.json` of the directory.

    Args:
        paths: One comparison, of one student or several, or reproduction, or one or several runs;
            each itself or its directory.
        out: Directory to write to, or the `.html` file, with the Markdown next to it. Default: the
            directory itself; for several runs, the closest directory that holds them all.
        trust: Execute Python files that the runs name for their networks, to measure these.

    Returns:
        Path of the page, a single file that loads no other.

    Raises:
        RunError: A directory is missing or damaged, or comparisons and runs are mixed.

    Example:
        page = understudy.report(["runs/student", "runs/control"], out="runs")
    """
    several = [paths] if isinstance(paths, str | PathLike) else paths
    folders = [Path(path) for path in several]
    html, text = _rendered(folders, trust=trust)
    file = Path(out) if out else Path(os.path.commonpath([f.resolve() for f in folders]))
    if file.suffix != ".html":
        file = file / "report.html"
    write(file, html, again="report again")
    write(file.with_suffix(".md"), text, again="report again")
    return file


def _rendered(folders: Sequence[Path], *, trust: bool) -> tuple[str, str]:
    """Return the page and the Markdown."""
    if len(folders) == 1 and (folders[0] / reproduction.FILE).is_file():
        reproduced = reproduction.Reproduction.load(folders[0])
        return reproduction_page.page(reproduced), reproduced.markdown()
    if len(folders) == 1 and (folders[0] / tuning.FILE).is_file():
        return _of_search(folders[0], trust=trust)
    if len(folders) == 1 and (folders[0] / StudentComparison.FILE).is_file():
        return _of_students(folders[0], trust=trust)
    if len(folders) == 1 and (folders[0] / FinetuneComparison.FILE).is_file():
        return _of_finetuning(folders[0], trust=trust)
    results = with_examinations(read(folders), folders)
    results = with_speeds(results, folders, trust=trust)
    limits = cautions(results)
    return page(results, limits, next_steps(folders)), markdown(results, limits)


def _of_search(folder: Path, *, trust: bool) -> tuple[str, str]:
    """Return the page and the Markdown of a search; write the report of what judges it."""
    searched = tuning.Tuning.load(folder)
    if searched.comparison:
        report(folder / tuning.JUDGED, trust=trust)
    html = tuning_page.page(
        searched, examinations([folder]), cautions_of([folder]), next_steps([folder])
    )
    return html, searched.markdown()


def _of_students(folder: Path, *, trust: bool) -> tuple[str, str]:
    """Return the page and the Markdown on several students; write the report of each of them."""
    students = StudentComparison.load(folder)
    for name in students.folders.values():
        report(folder / name, trust=trust)
    content = students_page.overview(students, speeds_of_students(students, trust=trust))
    html = students_page.page(content, cautions_of([folder]), next_steps([folder]))
    return html, students_page.markdown(content)


def _of_finetuning(folder: Path, *, trust: bool) -> tuple[str, str]:
    """Return the page and the Markdown on fine-tuned students; write the report of each part."""
    result = FinetuneComparison.load(folder)
    for name in result.folders.values():
        report(folder / name, trust=trust)
    rows = finetune_page.lines(result)
    html = finetune_page.page(result, rows, cautions_of([folder]), next_steps([folder]))
    return html, finetune_page.markdown(result, rows)
