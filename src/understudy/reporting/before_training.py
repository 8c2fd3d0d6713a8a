"""What the doctor said before training, as a section of the page and in Markdown."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from understudy.checks.examine import Examination
from understudy.experiment.plain_table import escaped
from understudy.reporting.results import Results

_TITLE = "Before training"


def with_examinations(results: Results, folders: Sequence[Path]) -> Results:
    """Return results with the examinations that the directories of a report hold."""
    return replace(results, examinations=examinations(folders))


def examinations(folders: Sequence[Path]) -> dict[str, Examination]:
    """Return title → examination of the directories of a report that hold one."""
    read = {folder: examination for folder in folders if (examination := Examination.read(folder))}
    titles = {folder: f"{_TITLE}: {folder.name}" if len(folders) > 1 else _TITLE for folder in read}
    return {titles[x]: read[x] for x in read}


def made(examination: Examination) -> str:
    """Return which checks were made, as a sentence for the page."""
    form = "short form" if examination.short else "long form"
    not_made = "".join(
        f" Not made: {', '.join(names)} ({reason})."
        for reason, names in examination.reasons.items()
    )
    return (
        f"The doctor made {len(examination.checks)} checks ({form}, {examination.seconds:.0f} s): "
        f"{', '.join(examination.checks)}.{not_made}"
    )


def markdown_section(title: str, examination: Examination) -> str:
    """Return errors and warnings as a list in Markdown; empty if there are none."""
    lines = [f"- {escaped(str(finding))}" for finding in examination.faults]
    return "\n".join([f"**{title}**", "", *lines]) if lines else ""
