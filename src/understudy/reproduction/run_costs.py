"""Predict how long runs take, from those that are finished or from a short measured probe."""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, final

from understudy import tasks
from understudy.config.recipe import Network, Recipe
from understudy.experiment import networks
from understudy.experiment.callback import Callback
from understudy.experiment.images import Images, ImagesOfRecipes
from understudy.experiment.run_time import FORWARD_AND_BACKWARD, measured_images
from understudy.experiment.train import train
from understudy.models.cost import macs
from understudy.reproduction.rows import Stage

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer

LOGGER = logging.getLogger("understudy")

_PROBE_SECONDS = 3.0
"""Training time of a probe, after its first step, which includes what is done once."""

_NOMINAL_SIZE = 224
"""Side of the views in pixels where neither the images nor the recipe have one."""


@final
class Costs:
    """Work and seconds of runs.

    The work of a run is the number of multiplications of its networks, by which rows are ordered
    without any measurement. How many of them the machine does in a second is known from the runs
    that are finished, and before any is from a probe.

    Args:
        images: Reads the images of a recipe.
        device: As for `train`.
    """

    def __init__(self, images: ImagesOfRecipes, device: str | None) -> None:
        self._images, self._device = images, device
        self._macs: dict[tuple[str, ...], float] = {}
        self._works: dict[str, float] = {}
        self._seconds: dict[Path, float] = {}
        self._rates: dict[Path, float] = {}
        self._probed: float | None = None

    def work(self, recipe: Recipe) -> float:
        """Return the multiply-accumulate operations of a run.

        Raises:
            UnderstudyError: The images or a network cannot be had.
        """
        key = recipe.digest
        if key not in self._works:
            images = self._images(recipe)
            student = self._of(recipe.student, recipe, images)
            taught = recipe.methods and (recipe.teacher.name or recipe.teacher.weights)
            teacher = self._of(recipe.teacher, recipe, images) if taught else 0.0
            step = FORWARD_AND_BACKWARD * student + teacher
            trained = recipe.training.epochs * len(images.train)
            self._works[key] = trained * step + measured_images(recipe, images) * student
        return self._works[key]

    def end(self, stage: Stage, seconds: float) -> None:
        """Note how long a whole run took."""
        self._seconds[stage.path] = seconds
        self._rates[stage.path] = seconds / self.work(stage.recipe)

    def seconds(self, stage: Stage, alike: Sequence[Stage] = ()) -> float:
        """Predict how long the rest of a run takes, if possible by other seeds of the same row.

        Args:
            stage: The run.
            alike: Runs of the same row.
        """
        same = [self._seconds[other.path] for other in alike if other.path in self._seconds]
        if same:
            return mean(same) * remaining(stage)
        if not self._rates and self._probed is None:
            self._probed = self._probe(stage.recipe)
        rate = median(self._rates.values()) if self._rates else self._probed or 0.0
        return self.work(stage.recipe) * rate * remaining(stage)

    def _of(self, spec: Network, recipe: Recipe, images: Images) -> float:
        """Return the operations of a network for one image; weights are not loaded for it."""
        networks.check_trust(recipe)
        named = replace(spec, weights="") if spec.name else spec
        key = (recipe.task, named.name, named.weights, named.pool, str(named.options))
        if key not in self._macs:
            task = tasks.find(recipe.task, recipe.training)
            side = recipe.data.size or images.train.size or _NOMINAL_SIZE
            classes = len(images.train.classes) or None
            self._macs[key] = float(macs(networks.student(named, classes, task, view_size=side)))
        return self._macs[key]

    def _probe(self, recipe: Recipe) -> float:
        """Train the student of a recipe alone for some seconds; return the seconds of its work."""
        LOGGER.info("The speed of this machine is measured for a few seconds.")
        alone = replace(recipe, methods={}, teacher=Network(), name="probe")
        alone = replace(alone, student=replace(alone.student, weights=""))
        watch = _Watch()
        with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
            images = self._images(recipe)
            train(alone, out=folder, device=self._device, callback=watch, images=images)
        work = FORWARD_AND_BACKWARD * self._of(recipe.student, recipe, self._images(recipe))
        return watch.seconds_per_image / work


def remaining(stage: Stage) -> float:
    """Return the share of the epochs of a run that is still to be trained."""
    return 1.0 - len(stage.run.history) / stage.recipe.training.epochs


class _Enough(Exception):
    """The probe has measured enough."""


@final
class _Watch(Callback):
    """Measures the seconds of an image, and ends the run."""

    def __init__(self) -> None:
        self.seconds_per_image = 0.0
        self._first: tuple[int, float] | None = None

    def step(self, trainer: "Trainer") -> None:
        """Measure from the end of the first step; end the probe after some seconds."""
        images, seconds = trainer.position.images, trainer.position.seconds
        if self._first is None:
            self._first = images, seconds
            return
        self.seconds_per_image = (seconds - self._first[1]) / max(images - self._first[0], 1)
        if seconds - self._first[1] > _PROBE_SECONDS:
            raise _Enough

    def epoch(self, record: dict[str, Any]) -> None:
        """End the probe with an epoch, however short."""
        if not self.seconds_per_image:
            self.seconds_per_image = 1.0 / max(record["images_per_second"], 1e-9)
        raise _Enough
