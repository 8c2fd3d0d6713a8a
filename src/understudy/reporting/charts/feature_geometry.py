"""Direction and norm of the features: all charts of the section, with their captions.

docs/pictures.md explains every one of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

from understudy.config.recipe import labelled
from understudy.reporting.charts.dot_plot import DotPlot, Measured, dot_plot
from understudy.reporting.charts.hash_agreement import hash_agreement
from understudy.reporting.charts.ridge_plot import RidgePlot, ridge_plot
from understudy.reporting.charts.style import Chart
from understudy.reporting.charts.template_maps import TemplateMap, template_maps
from understudy.reporting.results import TEACHER, Arm, Results

RIDGES = {
    "norm": (
        "Feature norm",
        "How long the features of the test images are, each row scaled to its peak. Good: the row "
        "lies over the dashed outline, the teacher. Left of it the student is less sure than the "
        "teacher; terms on the norm (nd, lshfm) change that.",
    ),
    "to_teacher": (
        "Direction: cosine to the teacher",
        "Cosine of the angle between the features of student and teacher for the same image: 1 is "
        "the same direction, 0 a right angle. Good: close to 1. A tail to the left are images that "
        "the student sees differently.",
    ),
    "to_class_mean": (
        "Direction: cosine to the class mean",
        "Cosine between a feature and the teacher's mean feature of its class. Good: as narrow and "
        "as far to the right as the teacher's own row. A second peak to the left are images that "
        "point to another class.",
    ),
}
"""Entry of diagnostics.json → title and caption of its distributions."""
BETWEEN_CLASSES = (
    "Between-class similarity",
    "Mean cosine between the mean features of two classes: how alike classes look to a network. "
    "The dashed line is the teacher. Good: not far right of the control, since classes that are "
    "closer together are harder to tell apart.",
)
ZEROS = (
    "Sparsity",
    "Share of the numbers of a feature that are exactly zero; the dashed line is the teacher. "
    "Close to it, both are equally sparse; many zeros behind a projector (a layer that is dropped "
    "after training) mean that it cannot follow the teacher. Hollow: before it, filled: behind it.",
)
PROJECTED = {
    "cka": (
        "Projector: CKA, {}",
        "CKA, the similarity of two feature spaces from 0 to 1, to the teacher: without the "
        "projector (hollow), a layer that is dropped after training, and behind it (filled). A "
        "long bar means that the projector and not the student resembles the teacher.",
    ),
    "cosine": (
        "Projector: cosine, {}",
        "Mean cosine to the teacher without the projector (hollow), a layer that is dropped after "
        "training, and behind it (filled); a long bar means that only the projector turns towards "
        "the teacher.",
    ),
}
"""Measure → title and caption of its chart, for each projected feature."""


@dataclass(frozen=True)
class FeatureGeometry:
    """Every chart that has something to show, and the arms whose runs stored nothing to draw.

    Of several teachers, `teacher` is the name of the one that students are compared with.
    """

    teacher: str
    arms: list[Arm]
    ridges: list[RidgePlot]
    bits: Chart | None
    dots: list[DotPlot]
    templates: list[TemplateMap]
    unmeasured: list[str]


@dataclass(frozen=True)
class _Side:
    """An arm or the teacher, and what was measured of each of its seeds."""

    arm: Arm
    seeds: list[dict[str, Any]]

    def measured(self, key: str) -> list[Any]:
        """Return one measure, of the seeds that have it."""
        return [seed[key] for seed in self.seeds if seed.get(key) is not None]


def feature_geometries(results: Results) -> list[FeatureGeometry]:
    """Return the charts beside each teacher, as far as there is something to say."""
    stored = (run.diagnostics.get("teachers", {}) for arm in results.arms for run in arm.runs)
    names = list(dict.fromkeys(name for teachers in stored for name in teachers)) or [""]
    every = [feature_geometry(results, name) for name in names]
    return [each for each in every if each.arms or each.unmeasured]


def feature_geometry(results: Results, teacher: str = "") -> FeatureGeometry:
    """Return all charts of the direction and the norm of features, beside one teacher."""
    beside = [replace(arm, beside=teacher) for arm in results.arms]
    arms = [arm for arm in beside if arm.diagnostics("student")]
    sides = [*_teacher(arms), *(_Side(arm, arm.diagnostics("student")) for arm in arms)]
    return FeatureGeometry(
        teacher=teacher,
        arms=[side.arm for side in sides],
        ridges=list(_ridges(sides)),
        bits=hash_agreement(arms),
        dots=list(_dots(sides, arms)),
        templates=list(template_maps(arms)),
        unmeasured=[
            arm.name
            for arm in results.arms
            if arm.fidelity and not any(run.diagnostics for run in arm.runs)
        ],
    )


def _teacher(arms: Sequence[Arm]) -> list[_Side]:
    """Return the teacher; nothing if the arms have different ones."""
    measured = [side for arm in arms for side in arm.diagnostics("teacher")]
    norms = [side["norm"]["mean"] for side in measured]
    if not measured or not all(isclose(norm, norms[0], rel_tol=0.01) for norm in norms):
        return []
    name = f"teacher {arms[0].beside}".strip()
    return [_Side(replace(TEACHER, name=name), measured[:1])]


def _ridges(sides: Sequence[_Side]) -> Iterator[RidgePlot]:
    for key, (title, caption) in RIDGES.items():
        plot = ridge_plot(title, caption, [(side.arm, side.measured(key)) for side in sides])
        if plot:
            yield plot


def _dots(sides: Sequence[_Side], arms: Sequence[Arm]) -> Iterator[DotPlot]:
    """Yield similarity of classes and sparsity, then the charts of every projected feature."""
    projections = [entry for arm in arms for entry in _projections(arm)]
    classes = [Measured(side.arm, side.measured("between_classes")) for side in sides]
    zeros = [Measured(side.arm, side.measured("zeros"), _zeros(side.arm)) for side in sides]
    plots = [dot_plot(*BETWEEN_CLASSES, classes), dot_plot(*ZEROS, zeros)]
    for feature in dict.fromkeys(entry["feature"] for entry in projections):
        for key, (title, caption) in PROJECTED.items():
            rows = [row for arm in arms for row in _projected(arm, feature, key)]
            plots.append(dot_plot(title.format(feature), caption, rows))
    yield from (plot for plot in plots if plot)


def _projections(arm: Arm) -> list[dict[str, Any]]:
    return [entry for entries in arm.diagnostics("projectors") for entry in entries]


def _zeros(arm: Arm) -> list[float]:
    """Return the sparsity of the penultimate feature behind a projector."""
    return [e["zeros"][1] for e in _projections(arm) if e["feature"] == "penultimate"]


def _projected(arm: Arm, feature: str, key: str) -> Iterator[Measured]:
    """Yield a row for each projector of an arm, or one for the arm without a projector."""
    entries = [entry for entry in _projections(arm) if entry["feature"] == feature]
    methods = list(dict.fromkeys(entry["method"] for entry in entries))
    for method in methods:
        pairs = [entry[key] for entry in entries if entry["method"] == method]
        own, projected = ([v for v in side if v is not None] for side in zip(*pairs, strict=True))
        name = arm.name if len(methods) == 1 else f"{arm.name}: {method}"
        yield Measured(replace(arm, name=name), own, projected)
    if not methods and feature == "penultimate":
        yield Measured(arm, arm.fidelity.get(labelled(arm.beside, key), []))
