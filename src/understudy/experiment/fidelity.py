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
    measured = task.measure(student, finished=finished)
    fidelity = {
        name: task.fidelity(student, outputs, finished=finished)
        for name, outputs in teachers.items()
        if outputs
    }
    if not fidelity or "" in fidelity:
        return replace(measured, fidelity=fidelity.get(""))
    every = {
        key: [part.get(key) for part in fidelity.values()] for key in next(iter(fidelity.values()))
    }
    means = {key: _mean(values) for key, values in every.items()}
    own = {labelled(name, key): x for name, part in fidelity.items() for key, x in part.items()}
    return replace(measured, fidelity={**means, **own})


def outcomes(
    task: Task, student: Outputs, teachers: Mapping[str, Outputs | None]
) -> Outcomes | None:
    """Return what single images contribute to the metric of verdicts; see `Task.outcomes`.

    Of several teachers, resampled values are means over the teachers, as the metric is.
    """
    first, *others = list(teachers.values()) or [None]
    of_first = task.outcomes(student, first)
    if not others or of_first is None or of_first.correct:
        return of_first
    parts = [of_first, *(task.outcomes(student, outputs) for outputs in others)]
    resampled = [part.resampled for part in parts if part and part.resampled]
    if len(resampled) < len(parts):
        return of_first
    return replace(of_first, resampled=[fmean(values) for values in zip(*resampled, strict=True)])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
