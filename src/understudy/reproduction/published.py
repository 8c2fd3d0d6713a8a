"""Published figures, and when a measured one agrees with them. Loads no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import mean, stdev
from typing import Any, Literal

from understudy.config.recipe import NOT_IN_DIGEST, Recipe
from understudy.config.tables import About

SEEDS = 3
"""Fewest runs whose standard deviation is used."""

Mark = Literal["within 2 sd", "outside 2 sd", "cannot be said"]

_FIGURE = re.compile(r"(\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?")

_SAME_RESULT = (
    *("training.precision", "training.teacher_precision", "training.compile", "training.graphs"),
    *("training.channels_last", "training.evaluate_every", "training.best"),
    *("training.checkpoint_minutes", "training.trackers"),
)
"""Keys of how a run computes and what it records; they are named, but are no other protocol."""

_NAMED_ELSEWHERE = (*NOT_IN_DIGEST, "seed", "teacher.weights", "student.weights", "training.best")
"""Keys without a place among the differences: names, folders, and what has a column of its own."""


@dataclass(frozen=True)
class Published:
    """The figure of a row as it was published.

    Attributes:
        text: The figure as it stands in the table; empty if there is none.
        figure: Top-1, mAP or AP50 in percent; None without one.
        deviation: Standard deviation over the published runs; None if it was not published.
        epoch: Epoch of the figure; empty if that is unknown.
        runs: Number of runs of which it is the mean; empty if unknown.
        teacher: Figure of the teacher; empty if unknown.
        source: Paper, and where the figure stands.
        note: What else is needed to interpret it.
    """

    text: str
    figure: float | None
    deviation: float | None
    epoch: str
    runs: str
    teacher: str
    source: str
    note: str

    @classmethod
    def of(cls, about: About, *, distilled: bool) -> "Published":
        """Return the figure of a row; that of the student alone if the row has no method."""
        text = about.published or ("" if distilled else about.student)
        match = _FIGURE.fullmatch(text)
        figure, deviation = match.groups() if match else (None, None)
        return cls(
            text=text,
            figure=None if figure is None else float(figure),
            deviation=None if deviation is None else float(deviation),
            epoch=about.epoch,
            runs=about.runs,
            teacher=about.teacher,
            source=": ".join(filter(None, (about.paper, about.table))),
            note=about.note,
        )


def protocol(recipe: Recipe, published: Published) -> str:
    """Return how the published figure was made: schedule, batch, epoch and runs."""
    training = recipe.training
    schedule = f"lr {training.lr:g}, {training.schedule}"
    if training.schedule == "step":
        schedule += f" at {', '.join(map(str, training.milestones))}"
    epoch = f"{published.epoch} epoch" if published.epoch else "epoch not stated"
    runs = f"mean of {published.runs} runs" if published.runs else "runs not stated"
    return f"{training.epochs} epochs, batch {training.batch}, {schedule}; {epoch}; {runs}"


def changes(published: Recipe, trained: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return dotted key → its value as published and as trained, of all that differ."""
    before, after = published.flat(), trained.flat()
    return {
        key: (before.get(key), after.get(key))
        for key in before | after
        if before.get(key) != after.get(key)
        and not any(fnmatchcase(key, path) for path in _NAMED_ELSEWHERE)
    }


def other_protocol(changed: Mapping[str, Any]) -> list[str]:
    """Return the changed keys that make another experiment of it, the epochs first."""
    keys = [key for key in changed if key not in _SAME_RESULT]
    return sorted(keys, key=lambda key: (key != "training.epochs", key))


@dataclass(frozen=True)
class Judgement:
    """Whether ours agrees with the published figure.

    Attributes:
        mark: Whether the mean lies within two standard deviations.
        reason: What that rests on, or why it cannot be said.
        deviation: The standard deviation; None if there is none.
    """

    mark: Mark
    reason: str
    deviation: float | None = None


def judged(published: Published, scores: Sequence[float], changed: Mapping[str, Any]) -> Judgement:
    """Judge whether a mean lies within two standard deviations of the published figure.

    The standard deviation is that of single runs: as published, or of at least three runs of ours,
    or the root of the mean of both variances.

    Args:
        published: The published figure.
        scores: Ours, one for each seed.
        changed: Keys that differ from the published protocol.
    """
    own = stdev(scores) if len(scores) >= SEEDS else None
    known = [sd for sd in (published.deviation, own) if sd is not None]
    deviation = mean(sd**2 for sd in known) ** 0.5 if known else None
    if reason := _unsaid(published, scores, other_protocol(changed)):
        return Judgement("cannot be said", reason, deviation)
    if deviation is None or published.figure is None:
        count = "one seed" if len(scores) == 1 else f"{len(scores)} seeds"
        return Judgement("cannot be said", f"{count}, and no published deviation")
    distance = abs(mean(scores) - published.figure)
    which = "both" if len(known) == 2 else "published" if own is None else "ours"
    reason = f"{distance:.2f} apart, sd {deviation:.2f} ({which})"
    # Figures are published with two digits.
    inside = distance <= 2 * deviation + 0.005
    return Judgement("within 2 sd" if inside else "outside 2 sd", reason, deviation)


def _unsaid(published: Published, scores: Sequence[float], other: Sequence[str]) -> str:
    """Return why nothing can be said, whatever the figures are; empty if something can."""
    if published.figure is None:
        return "no published figure"
    if not scores:
        return "not run"
    if other:
        return f"another protocol ({', '.join(other[:3])}{' and more' if len(other) > 3 else ''})"
    return ""
