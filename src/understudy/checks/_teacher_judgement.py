"""Judge a teacher by its outputs: against chance and a probe, by other inputs and class orders."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, takewhile
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from understudy.batch import Batch, labelled
from understudy.checks import _class_orders, _input_trials
from understudy.checks._input_trials import Clock, Preparation
from understudy.checks._probe import looks_initialised, probe
from understudy.checks._scores import (
    above,
    affordable_images,
    by_other_images,
    far_better,
    labelled_outputs,
    measured_split,
    scores,
)
from understudy.checks.examined import Examined, SplitName
from understudy.checks.finding import Level
from understudy.experiment.evidence import chance
from understudy.models.network import Network

_TRIAL_IMAGES = 32, 256
"""Least and most images on which a variant is measured: a quarter of those of the teacher."""

_TRIAL_SECONDS = {True: 3.0, False: 15.0}
"""Seconds for variants, by whether the form is the short one."""

_AT_CHANCE = 2.0
"""Factor of this time for a teacher that is at chance."""

_GOOD = 0.95
"""Mean score from which on nothing can be far better."""

_OF_PROBE = 0.75
"""Least score of a variant, as a share of that of a linear probe.

A classifier of random weights has a best order and a best input as well, which are above chance.
"""

_SURE = 50
"""Images from which on a teacher at chance is an error, which stops a run, and no warning."""

_ROUNDS = 2
"""Things in which the recipe may be wrong at once, besides the order of the classes."""


@dataclass(frozen=True)
class Variant:
    """A teacher with another preparation or class order.

    Attributes:
        preparation: How images are prepared.
        scores: Score of every image.
        order: Class of the data of each logit; None for the recipe's.
        order_name: Name of the order.
        before: Mean score of the same images by the recipe's preparation and order.
    """

    preparation: Preparation
    scores: Tensor
    order: _class_orders.Order | None = None
    order_name: str = ""
    before: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What a teacher's own outputs say of it.

    Attributes:
        split: Split that was measured.
        images: Number of its labelled images that were.
        value: The headline metric, in percent.
        score: Mean score of an image, in percent; see `_scores.scores`.
        chance: What guessing gives of the headline metric, in percent.
        random: As `score`, by the outputs for other images, drawn at random.
        probe: The same of a linear probe of the penultimate feature.
        at_chance: True if the score is not above that of the outputs for other images.
        tried: Number of other preparations that were tried, each in several class orders.
        better: A variant that is far better; None if there is none, or nothing to gain.
        untrained: True if the teacher is at chance, and its classifier's weights as initialised.
    """

    split: SplitName
    images: int
    value: float
    score: float
    chance: float | None
    random: float
    probe: float
    at_chance: bool
    tried: int
    better: Variant | None
    untrained: bool

    @property
    def level(self) -> Level:
        """Level of a finding about it: an error for a teacher that is surely at chance."""
        return "error" if self.at_chance and self.images >= _SURE else "warning"


_JUDGEMENTS: WeakKeyDictionary[Examined, Judgement | None] = WeakKeyDictionary()


def judgement(examined: Examined) -> Judgement | None:
    """Return the judgement on the teacher, made once; None if it cannot be measured.

    It can if it is a network of whole images, with the classes of the data, and these have labels.
    """
    if examined not in _JUDGEMENTS:
        _JUDGEMENTS[examined] = _judged(examined)
    return _JUDGEMENTS[examined]


def _judged(examined: Examined) -> Judgement | None:
    teacher, classes = examined.experiment.teacher, len(examined.images.train.classes)
    if not isinstance(teacher, Network) or not examined.task.uses_labels or not classes:
        return None
    if teacher.num_classes != classes:
        return None
    split = measured_split(examined)
    count = affordable_images(examined, split)
    outputs = examined.teacher_outputs(split, count)
    logits, labels = labelled_outputs(outputs)
    if len(labels) < 2:
        return None
    own, random = scores(logits, labels), by_other_images(logits, labels)
    features = outputs["penultimate"][labelled(outputs["labels"])].float()
    probed = scores(probe(features, labels, classes), labels)
    at_chance = not above(own, random)
    trials = _Trials(examined, teacher, split, count)
    better, metric = None, examined.task.headline
    if float(own.mean()) < _GOOD:
        seconds = _TRIAL_SECONDS[examined.short] * (_AT_CHANCE if at_chance else 1.0)
        better = trials.best(seconds, float(probed.mean()))
    return Judgement(
        split=split,
        images=len(labels),
        value=examined.task.measure(outputs).metrics[metric],
        score=100 * float(own.mean()),
        chance=chance(metric, classes, len(labels), _present(labels)),
        random=100 * float(random.mean()),
        probe=100 * float(probed.mean()),
        at_chance=at_chance,
        tried=trials.tried,
        better=better,
        untrained=at_chance and better is None and looks_initialised(teacher),
    )


def _present(labels: Tensor) -> list[int]:
    """Return how many images have each class, where an image has several; else nothing."""
    return (labels == 1).sum(0).tolist() if labels.ndim == 2 else []


class _Trials:
    """Measures a teacher on some images in other preparations, each in its best class order."""

    def __init__(
        self, examined: Examined, teacher: Network, split: SplitName, measured: int
    ) -> None:
        distiller = examined.experiment.distiller
        assert distiller.teacher is not None
        self._examined, self._teacher, self._outputs = examined, teacher, distiller.teacher.outputs
        least, most = _TRIAL_IMAGES
        self._loader = examined.sample(split, min(max(measured // 4, least), most))
        self._classes = examined.images.train.classes
        self._plain = torch.zeros(0)
        self.tried = 0
        """Number of preparations that were measured, besides the recipe's."""

    def best(self, seconds: float, probed: float) -> Variant | None:
        """Return the best preparation and class order, if it is far better than the recipe's.

        Args:
            seconds: Time to look for it.
            probed: Mean score of a linear probe, which a teacher that is prepared well gets near.
        """
        clock = Clock(min(seconds, self._examined.seconds_left() / 2))
        start = best = cast(Variant, self._variant(Preparation.of(self._teacher)))
        self.tried = 0
        for _ in range(_ROUNDS):
            top = max(
                (v for v in map(self._variant, self._others(best, clock)) if v is not None),
                key=lambda variant: float(variant.scores.mean()),
                default=best,
            )
            if not far_better(top.scores, best.scores):
                break
            best = top
        good = float(best.scores.mean()) >= _OF_PROBE * probed
        changed = best is not start or start.order is not None
        if not (good and changed and far_better(best.scores, self._plain)):
            return None
        return replace(best, before=float(self._plain.mean()))

    def _others(self, variant: Variant, clock: Clock) -> Iterator[Preparation]:
        """Yield preparations that differ in one thing, as long as there is time."""
        now = variant.preparation
        every = chain(now.normalised(), now.swapped(), now.resized(self._loader.views.size))
        return takewhile(lambda _: clock.allows_another(), every)

    @cached_property
    def _batches(self) -> list[Batch]:
        device = self._examined.placed.accelerator.device
        images = self._loader.single_pass(augmented=False)
        return [batch.to(device, torch.contiguous_format) for batch in images]

    def _variant(self, preparation: Preparation) -> Variant | None:
        """Return the teacher in a preparation; None if it does not take its size."""
        logits = _input_trials.logits(self._teacher, preparation, self._batches, self._outputs)
        if logits is None:
            return None
        self.tried += 1
        every = {"logits": logits, "labels": torch.cat([b.labels for b in self._batches]).cpu()}
        logits, labels = labelled_outputs(every)
        plain = scores(logits, labels)
        self._plain = self._plain if len(self._plain) else plain
        return self._ordered(preparation, logits, labels, plain)

    def _ordered(
        self, preparation: Preparation, logits: Tensor, labels: Tensor, plain: Tensor
    ) -> Variant:
        """Return the variant in the class order that is far better than the recipe's, if any is."""
        best = Variant(preparation, plain)
        for name, order in _class_orders.named_orders(self._classes):
            ordered = scores(_class_orders.in_order(logits, order), labels)
            if far_better(ordered, plain) and ordered.mean() > best.scores.mean():
                best = Variant(preparation, ordered, order, name)
        fitted = scores(_class_orders.cross_assigned(logits, labels), labels)
        if far_better(fitted, plain) and far_better(fitted, best.scores):
            order = _class_orders.assigned_order(_class_orders.relation(logits, labels))
            return Variant(preparation, fitted, order, "that fits these images best")
        return best
