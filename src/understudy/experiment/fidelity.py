"""Metrics of a student, and its fidelity to each of its teachers."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from understudy.config.recipe import labelled
from understudy.tasks import Evaluation, Outcomes, Outputs, Task


def evaluation(
    task: Task, student: Outputs, teachers: Mapping[str, Outputs | None], *, finished: bool = False
) -> Evaluation:
    """Return metrics of a student's outputs, and their fidelity to those of its teachers.

    Of teachers with names, a measure has the value of each under `dino/cka`, and under its own name
    the mean over the teachers; None, if it is undefined for one of them.

    Args:
        task: Defines the metrics.
        student: Outputs of the student.
        teachers: Name → outputs that the student is compared with; None where there are none.
        finished: Compute what takes too long for every epoch, too.
    """
    measure = task.evaluate_finished if finished else task.evaluate
    parts = {name: measure(student, outputs) for name, outputs in teachers.items()}
    if not parts:
        return measure(student, None)
    first = next(iter(parts.values()))
    if "" in parts:
        return first
    fidelity = {name: part.fidelity or {} for name, part in parts.items()}
    every = {key: [part.get(key) for part in fidelity.values()] for key in first.fidelity or {}}
    means = {key: _mean(values) for key, values in every.items()}
    own = {labelled(name, key): x for name, part in fidelity.items() for key, x in part.items()}
    return replace(first, fidelity={**means, **own} or None)


def outcomes(
    task: Task, student: Outputs, teachers: Mapping[str, Outputs | None]
) -> Outcomes | None:
    """Return what single images contribute to the metric of verdicts; see `Task.outcomes`.

    Of several teachers, resampled values are means over the teachers, as the metric is.
    """
    parts = [task.outcomes(student, outputs) for outputs in teachers.values()]
    if len(parts) < 2:
        return parts[0] if parts else task.outcomes(student, None)
    first, resampled = parts[0], [part.resampled for part in parts if part and part.resampled]
    if first is None or first.correct or len(resampled) < len(parts):
        return first
    return replace(first, resampled=[fmean(values) for values in zip(*resampled, strict=True)])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
