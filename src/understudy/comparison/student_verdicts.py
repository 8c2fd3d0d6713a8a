"""Tell the students of a comparison in their `config.json` how they compare with the control."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import mean
from typing import Any

from understudy import files
from understudy.comparison.arms import CONTROL
from understudy.comparison.result import Comparison, known_values
from understudy.experiment.student_file.config import FILE, StudentConfig


def tell_students(comparison: Comparison) -> None:
    """Write control and verdict of every arm into the files of its students.

    Nobody else may write the directory meanwhile.

    Args:
        comparison: A judged comparison, with its directory.

    Raises:
        RunError: A file is damaged, or cannot be written.
    """
    metric = comparison.metric
    of_control = next(arm for arm in comparison.arms if arm["name"] == CONTROL)
    for arm in comparison.arms:
        if arm["verdict"] is None:
            continue
        control = {
            "metric": metric,
            "control": _mean(of_control, metric),
            "student": _mean(arm, metric),
            **{key: arm["verdict"][key] for key in ("difference", "low", "high", "word", "seeds")},
        }
        for run in comparison.runs(arm["name"]):
            for folder in (run.path, run.path / "best"):
                if (folder / FILE).is_file():  # runs of earlier versions have none
                    config = StudentConfig.read(folder)
                    judged = replace(config, control=control, verdict=arm["verdict"]["sentence"])
                    files.sweep(folder)  # what a process left that was killed right here
                    judged.write(folder)


def _mean(arm: Mapping[str, Any], metric: str) -> float | None:
    known = known_values(arm, metric)
    return mean(known) if known else None
