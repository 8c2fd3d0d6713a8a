"""Put size and latency of the networks into the content of a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from understudy.comparison.students import StudentComparison
from understudy.deployment.speed.latency import Speeds
from understudy.deployment.speed.stored import comparison_runs, exported_speeds, speeds_of
from understudy.experiment.run_directory import Run
from understudy.reporting.results import Results
from understudy.reporting.students_page import network_name

_TITLE = "Size and latency"


def with_speeds(results: Results, folders: Sequence[Path], *, trust: bool) -> Results:
    """Return results with the figures of their networks, as far as their students are on disk."""
    runs = {arm.name: run for arm in results.arms for run in arm.runs[:1] if run.finished}
    if not runs:
        return results
    tables = _of_exports(runs)
    if len(runs) > 1 or not tables:
        speeds = speeds_of(_place(folders), runs, trust=trust)
        tables = ({_TITLE: speeds} if speeds else {}) | tables
    return replace(results, speeds=tables)


def _of_exports(runs: dict[str, Run]) -> dict[str, Speeds]:
    """Return the figures of runs that were exported, each with its teacher and control."""
    measured = {name: exported_speeds(run) for name, run in runs.items()}
    return {f"{_TITLE} of {name}, exported": x for name, x in measured.items() if x}


def _place(folders: Sequence[Path]) -> Path | None:
    """Return the directory that keeps the figures; None where several are put side by side."""
    return folders[0] if len(folders) == 1 else None


def speeds_of_students(students: StudentComparison, *, trust: bool) -> Speeds:
    """Return the figures of all arms of several students, measured together."""
    root = Path(students)
    runs = {
        network_name(student, arm): run
        for student, folder in students.folders.items()
        for arm, run in comparison_runs(root / folder).items()
    }
    return speeds_of(root, runs, trust=trust) or Speeds("", 1, [])
