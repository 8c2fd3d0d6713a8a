"""A teaching detector's own precision, and whether another normalisation or class order mends it.

Objects that a box of the teacher covers are compared with the class of that box: a detector whose
classes are in another order covers them all, and names them wrongly. One that is given images of
another normalisation or channel order covers few.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from understudy.batch import Batch
from understudy.checks import _class_orders
from understudy.checks._input_trials import NORMALISATIONS, Clock, swapped
from understudy.checks._scores import far_better, measured_split
from understudy.checks.examined import Examined
from understudy.checks.finding import Finding, Level
from understudy.experiment import networks
from understudy.models.detection import Detector
from understudy.tasks import Outputs, Task
from understudy.tasks.detection import detections_in, ground_truth_in

SHORT, OF_METHODS, SECONDS = False, False, 20.0

CHECK = "detector_accuracy"

_IMAGES = 32

_COVERED = 0.5
"""Intersection over union from which on a box covers an object."""

_LEAST = 1.0
"""AP50 in percent below which a detector finds nothing."""

_TRIAL_SECONDS = 15.0

_REVERSE = (
    "Name as teacher a function of a Python file (file.py:factory) that builds it with the "
    "channels of its first convolution reversed, `weight.flip(1)`."
)
"""What mends a detector of BGR images."""

_NamedOrder = tuple[str, list[int]]

_NONE = -1
"""Class of an object that no box covers."""


@dataclass(frozen=True)
class _Measured:
    """Classes that a detector gives to objects, in one preparation.

    Attributes:
        value: AP50 in percent.
        named: Class of the best box over each object; `_NONE` without one.
        true: Class of each object.
    """

    value: float
    named: Tensor
    true: Tensor

    def hits(self, order: Sequence[int] | None = None) -> Tensor:
        """Return for each object 1 if its class is named, in an order of the detector's classes."""
        named = self.named
        if order is not None:
            named = torch.tensor([*order, _NONE])[named]
        return (named == self.true).float()


def check(examined: Examined) -> Iterator[Finding]:
    """Measure a teaching detector, and try other inputs and orders of its classes."""
    teacher, classes = examined.experiment.teacher, examined.images.train.classes
    if not isinstance(teacher, Detector) or teacher.num_classes != len(classes):
        return
    split, device = measured_split(examined), examined.placed.accelerator.device
    images = examined.sample(split, _IMAGES).single_pass(augmented=False)
    batches = [batch.to(device, torch.contiguous_format) for batch in images]
    measure = _Measure(examined, batches)
    own = measure()
    if len(own.true) < 2:
        return
    count = sum(map(len, batches))
    said = f"The teacher's own AP50 on {count} {split} images is {own.value:.1f}"
    level: Level = "error" if own.value < _LEAST else "warning"
    if (order := better_order(own, classes)) is not None:
        names = _class_orders.renamed(examined.recipe.teacher, classes, order[1])
        yield _reordered(own, order, names, level, said)
        return
    better = _better(teacher, measure, own)
    if better is not None:
        # Of a run directory, the options are those of the run.
        options = networks.completed(examined.recipe.teacher, "teacher").options
        yield _mended(better, options, level, said)
    elif level == "error":
        yield Finding(
            CHECK,
            "error",
            f"{said}, and neither another normalisation nor another order of its classes changes "
            "that.",
            advice="Check teacher.weights, and measure it by `understudy evaluate`.",
        )
    else:
        yield Finding(CHECK, "note", f"{said}.")


def _reordered(
    own: _Measured, order: _NamedOrder, names: list[str], level: Level, said: str
) -> Finding:
    name, positions = order
    before, after = (100 * float(own.hits(each).mean()) for each in (None, positions))
    return Finding(
        CHECK,
        level,
        f"{said}; with its classes in another order ({name}) it names {after:.0f} % of "
        f"{len(own.true)} objects instead of {before:.0f} %.",
        {"teacher.classes": names},
    )


def _mended(
    better: tuple[str, _Measured, dict[str, Any]],
    options: Mapping[str, Any],
    level: Level,
    said: str,
) -> Finding:
    words, measured, changed = better
    return Finding(
        CHECK,
        level,
        f"{said}; with {words} it is {measured.value:.1f}.",
        {"teacher.options": {**options, **changed}} if changed else {},
        "" if changed else _REVERSE,
    )


class _Measure:
    """Measures the teacher on some images."""

    def __init__(self, examined: Examined, batches: Sequence[Batch]) -> None:
        distiller, self._task = examined.experiment.distiller, examined.task
        assert distiller.teacher is not None
        self._outputs, self._batches = distiller.teacher.outputs, batches

    def __call__(self, prepare: Callable[[Batch], Batch] = lambda batch: batch) -> _Measured:
        """Return what the teacher finds in images that a function has prepared."""
        parts = [
            self._task.collect(self._outputs(prepare(part)), part)
            for batch in self._batches
            for part in batch.by_size()
        ]
        every = {name: x.cpu() for name, x in self._task.concatenate(parts).items()}
        return classes_of_objects(every, self._task)


def classes_of_objects(outputs: Outputs, task: Task) -> _Measured:
    """Return the precision of a detector, and the class of the best box over each object."""
    value = task.measure(outputs).metrics.get("AP50", 0.0)
    detections, truth = detections_in(outputs), ground_truth_in(outputs)
    truth = truth[truth.required]
    named = torch.full_like(truth.classes, _NONE)
    for image in sorted(set(truth.image.tolist())):
        boxes, objects = detections.image == image, truth.image == image
        if bool(boxes.any()):
            overlaps = box_iou(truth.boxes[objects], detections.boxes[boxes])
            sure = detections.scores[boxes].where(overlaps >= _COVERED, -1.0)
            best = detections.classes[boxes][sure.argmax(1)]
            named[objects] = best.where(sure.amax(1) >= 0, _NONE)
    return _Measured(value, named, truth.classes)


def better_order(own: _Measured, classes: Sequence[str]) -> _NamedOrder | None:
    """Return the class order in which far more objects are named rightly; None if there is none."""
    orders = list(_class_orders.named_orders(classes))
    best = max(orders, key=lambda each: float(own.hits(each[1]).mean()), default=None)
    if best is not None and not far_better(own.hits(best[1]), own.hits()):
        best = None
    known = own.hits(best[1]) if best else own.hits()
    fitted = known.clone()
    for half in (0, 1):
        fitted[half::2] = own.hits(_fitted(own, len(classes), 1 - half))[half::2]
    if far_better(fitted, known):
        return "that fits these objects best", _fitted(own, len(classes), None)
    return best


def _fitted(own: _Measured, classes: int, half: int | None) -> list[int]:
    """Return the order that fits every second object, or all."""
    rows = slice(None) if half is None else slice(half, None, 2)
    named, true = own.named[rows], own.true[rows]
    relation = torch.zeros(classes + 1, classes)
    relation.index_put_((named, true), torch.ones(len(true)), accumulate=True)
    return _class_orders.assigned_order(relation[:classes])


def _better(
    teacher: Detector, measure: _Measure, own: _Measured
) -> tuple[str, _Measured, dict[str, Any]] | None:
    """Return the best other preparation: its name, what it finds, and options that ask for it."""
    clock, best = Clock(_TRIAL_SECONDS), None
    for name, prepare, options in _preparations(teacher):
        if not clock.allows_another():
            break
        with prepare as change:
            tried = measure(change)
        if far_better(tried.hits(), own.hits()) and (best is None or tried.value > best[1].value):
            best = name, tried, options
    return best


def _preparations(teacher: Detector) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield other preparations of images: name, context manager, and options of the network."""
    transform: Any = teacher.module.transform
    for name, (mean, std) in NORMALISATIONS.items():
        if max(abs(a - b) for a, b in zip(mean, transform.image_mean, strict=True)) > 0.05:
            options = {"image_mean": list(mean), "image_std": [round(x, 6) for x in std]}
            yield name, _normalising(transform, options), options
    yield "channels in the order BGR", _normalising(transform, {}, reverse=True), {}


@contextmanager
def _normalising(
    transform: Any, options: Mapping[str, Any], *, reverse: bool = False
) -> Iterator[Callable[[Batch], Batch]]:
    """Let a detector normalise images in another way for a while; yield what changes a batch."""
    before = {key: getattr(transform, key) for key in ("image_mean", "image_std")}
    for key, value in options.items():
        setattr(transform, key, value)
    try:
        yield swapped if reverse else lambda batch: batch
    finally:
        for key, value in before.items():
            setattr(transform, key, value)
