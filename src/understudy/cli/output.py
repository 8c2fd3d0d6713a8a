"""Output that several commands share: the console, how a student is loaded, the report."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.experiment.run_directory import Run

RANK = os.environ.get("RANK", "0")
"""Number of this process, if torchrun started several; only the first prints."""

SEEDS = (0, 1, 2)
"""Seeds of a comparison unless a flag gives others."""


def console() -> "Console":
    """Return the console of the standard output."""
    from understudy.experiment.progress import stdout_console

    return stdout_console()


def print_lines(run: "Run", what: str = "The student") -> None:
    """Print where the student of a finished run is, and how another program loads it."""
    from understudy.experiment.student_file.config import FILE

    if RANK == "0" and (run.path / FILE).is_file():  # runs of earlier versions have none
        predict = f"understudy predict {run.path} PICTURE_OR_FOLDER"
        lines = (
            "",
            f"{what} is in {run.path}",
            f"  try it:    {predict if run.config.predicts else f'understudy probe {run.path}'}",
            f"  deploy it: understudy export {run.path}",
            "",
            str(run.loading_lines),
            "",
        )
        console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def report_on(paths: Sequence[str | Path], out: str | None = None) -> None:
    """Write the report of some directories; print what limits its numbers, and its path."""
    if RANK == "0":
        from understudy.reporting import report
        from understudy.reporting.cautions import cautions_of

        written = report(paths, out=out)
        for caution in cautions_of([Path(path) for path in paths]):
            console().print(str(caution), soft_wrap=True, highlight=False, markup=False)
        print(f"report: {written}")
