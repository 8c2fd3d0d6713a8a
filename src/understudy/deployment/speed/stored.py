"""Size and latency of the networks of a directory: measured once, then read from `speed.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from understudy import files
from understudy.comparison.result import read_comparison
from understudy.deployment import exported_folder
from understudy.deployment.exported_folder import read_export
from understudy.deployment.speed import networks_to_time
from understudy.deployment.speed.latency import SPEEDS, Speeds, measure
from understudy.errors import RunError
from understudy.experiment.run_directory import Run, read_json

FILE = "speed.json"
_STUDENT = "student.safetensors"


def speeds_of(
    folder: Path | None, runs: Mapping[str, Run], *, trust: bool = False
) -> Speeds | None:
    """Return size and latency of the students of some runs, and of their teacher.

    Args:
        folder: Directory that holds them all, where the figures are kept; None keeps them nowhere.
        runs: Arm, or name of a run → one of its runs.
        trust: Execute Python files that the runs name for their networks.

    Returns:
        The figures of this machine, or of the one where they were measured; None if no run has
        ended with a student.
    """
    ended = {name: run for name, run in runs.items() if (run.path / _STUDENT).is_file()}
    if not ended:
        return None
    kept = _kept(folder, list(ended.values()))
    if kept is not None and {x for row in kept.rows for x in row.names} >= set(ended):
        return kept
    folders = {name: run.path for name, run in ended.items()}
    first = next(iter(ended.values()))
    candidates, notes = networks_to_time.candidates(first, folders, trust=trust)
    speeds = measure(candidates)
    speeds = replace(speeds, notes=notes)
    if candidates and folder is not None:
        _keep(folder, speeds)
    return speeds


def exported_speeds(run: Run) -> Speeds | None:
    """Return the figures that the export of a run measured; None if it was not exported."""
    content = read_export(run.path / exported_folder.FOLDER)
    if not content.get("speeds"):
        return None
    speeds = Speeds.from_dict(content["speeds"])
    compared = {**content["parity"], **({"int8": content["int8"]} if content["int8"] else {})}
    sentences = [f"{form}: {one['sentence']}" for form, one in compared.items()]
    return replace(speeds, notes=[*sentences, *speeds.notes])


def comparison_runs(folder: Path) -> dict[str, Run]:
    """Return the first finished run of every arm of a comparison."""
    arms = read_comparison(folder)["arms"]
    return {arm["name"]: Run(folder / arm["runs"][0]) for arm in arms if arm["runs"]}


def _kept(folder: Path | None, runs: Sequence[Run]) -> Speeds | None:
    """Return figures that were measured after the last student was written."""
    if folder is None or not (path := folder / FILE).is_file():
        return None
    written = max((run.path / _STUDENT).stat().st_mtime for run in runs)
    if path.stat().st_mtime < written:
        return None
    remedy = "delete it, and report again"
    return Speeds.from_dict(read_json(path, SPEEDS, remedy=remedy))


def _keep(folder: Path, speeds: Speeds) -> None:
    try:
        files.write(folder / FILE, files.as_json(speeds.to_dict(), indent=1))
    except RunError:
        return  # a directory that may only be read has a report elsewhere
