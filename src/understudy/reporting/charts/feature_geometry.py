"""Direction and norm of the features: what each picture shows, of whom, and what to look for.

docs/pictures.md explains every one of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

from understudy.reporting.charts.dot_plot import Dots, Measured, dots
from understudy.reporting.charts.hash_agreement import bits
from understudy.reporting.charts.ridge_plot import Ridges, ridges
from understudy.reporting.charts.template_maps import TemplateMap, template_maps
from understudy.reporting.charts.training_curves import Curve
from understudy.reporting.results import Arm, Results

NORM = (
    "Norm",
    "Length of the penultimate feature of every test image, each row as high as its peak; look for "
    "rows left or right of the dashed outline, the teacher.",
)
TO_TEACHER = (
    "Direction: cosine to the teacher",
    "Between both features of the same image; look for rows close to one, and for a tail of images "
    "that point elsewhere.",
)
TO_CLASS_MEAN = (
    "Direction: cosine to the class mean",
    "Between a feature and the teacher's mean feature of its class; look for rows as narrow and as "
    "far right as the teacher's own.",
)
BETWEEN_CLASSES = (
    "Likeness of the classes",
    "Mean cosine between the mean features of two classes; look for arms right of the dashed line, "
    "the teacher, whose classes lie closer together.",
)
ZEROS = (
    "Zeros",
    "Share of the values of a feature that are exactly zero, full behind a projector where there "
    "is one; look for arms right of the dashed line, the teacher.",
)
CKA = (
    "Projector: CKA, {}",
    "Likeness to the teacher, hollow without the projector and full with it; look for long bars, "
    "where the projector and not the student resembles the teacher.",
)
COSINE = (
    "Projector: cosine, {}",
    "Mean cosine to the teacher, hollow without the projector and full with it; look for long "
    "bars, where only the projector turns to the teacher.",
)


@dataclass(frozen=True)
class Pictures:
    """Every picture that has something to show, and the arms that kept nothing to draw."""

    arms: list[Arm]
    ridges: list[Ridges]
    bits: Curve | None
    dots: list[Dots]
    templates: list[TemplateMap]
    unmeasured: list[str]


@dataclass(frozen=True)
class _Side:
    """An arm or the teacher, and what each of its seeds kept."""

    arm: Arm
    kept: list[dict[str, Any]]

    def all(self, key: str) -> list[Any]:
        """One measure, of the seeds that have it."""
        return [seed[key] for seed in self.kept if seed.get(key) is not None]


def pictures(results: Results) -> Pictures:
    """All pictures of directions and norms."""
    arms = [arm for arm in results.arms if _diagnostics(arm)]
    students = [_Side(arm, [kept["student"] for kept in _diagnostics(arm)]) for arm in arms]
    sides = [*_teacher(arms), *students]
    return Pictures(
        arms=[side.arm for side in sides],
        ridges=list(_ridges(sides)),
        bits=bits([(arm, [d["bits"] for d in _diagnostics(arm) if d["bits"]]) for arm in arms]),
        dots=list(_dots(sides, arms)),
        templates=template_maps(arms),
        unmeasured=[arm.name for arm in results.arms if arm.fidelity and not _kept(arm)],
    )


def _kept(arm: Arm) -> bool:
    """Whether an arm kept anything to draw, be it of objects alone."""
    return any(run.diagnostics for run in arm.runs)


def _diagnostics(arm: Arm) -> list[dict[str, Any]]:
    return [run.diagnostics for run in arm.runs if "student" in run.diagnostics]


def _teacher(arms: Sequence[Arm]) -> list[_Side]:
    """The teacher, if all arms have the same one; runs side by side may differ in it."""
    found = [kept["teacher"] for arm in arms for kept in _diagnostics(arm)]
    norms = [side["norm"]["mean"] for side in found]
    if not found or not all(isclose(norm, norms[0], rel_tol=0.01) for norm in norms):
        return []
    return [_Side(Arm("teacher", "teacher", "teacher"), found[:1])]


def _ridges(sides: Sequence[_Side]) -> Iterator[Ridges]:
    for (title, words), key in (
        (NORM, "norm"),
        (TO_TEACHER, "to_teacher"),
        (TO_CLASS_MEAN, "to_class_mean"),
    ):
        drawn = ridges(title, words, [(side.arm, side.all(key)) for side in sides])
        if drawn:
            yield drawn


def _dots(sides: Sequence[_Side], arms: Sequence[Arm]) -> Iterator[Dots]:
    """Classes and zeros of all, then every projected feature."""
    projections = [entry for arm in arms for entry in _projections(arm)]
    classes = [Measured(side.arm, side.all("between_classes")) for side in sides]
    zeros = [Measured(side.arm, side.all("zeros"), _zeros(side.arm)) for side in sides]
    found = [dots(*BETWEEN_CLASSES, classes), dots(*ZEROS, zeros)]
    for feature in dict.fromkeys(entry["feature"] for entry in projections):
        for (title, words), key in ((CKA, "cka"), (COSINE, "cosine")):
            rows = [row for arm in arms for row in _projected(arm, feature, key)]
            found.append(dots(title.format(feature), words, rows))
    yield from (drawn for drawn in found if drawn)


def _projections(arm: Arm) -> list[dict[str, Any]]:
    return [entry for kept in _diagnostics(arm) for entry in kept["projectors"]]


def _zeros(arm: Arm) -> list[float]:
    """Of the penultimate feature behind a projector."""
    return [e["zeros"][1] for e in _projections(arm) if e["feature"] == "penultimate"]


def _projected(arm: Arm, feature: str, key: str) -> Iterator[Measured]:
    """A row for each projector of an arm, or what the arm reaches without one."""
    entries = [entry for entry in _projections(arm) if entry["feature"] == feature]
    methods = list(dict.fromkeys(entry["method"] for entry in entries))
    for method in methods:
        pairs = [entry[key] for entry in entries if entry["method"] == method]
        own, projected = ([v for v in side if v is not None] for side in zip(*pairs, strict=True))
        name = arm.name if len(methods) == 1 else f"{arm.name}: {method}"
        yield Measured(replace(arm, name=name), own, projected)
    if not methods and feature == "penultimate":
        yield Measured(arm, arm.fidelity.get(key, []))
