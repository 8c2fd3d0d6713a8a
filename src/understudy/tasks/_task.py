"""`Task`: the abstract base class of loss on labels, metrics and fidelity."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import Batch
from understudy.config.recipe import Training
from understudy.errors import RecipeError
from understudy.features import Features

Outputs = dict[str, Tensor]
"""Network outputs for a set of images that metrics are computed from, on the CPU."""

ClassWeights = Literal["none", "balanced"] | tuple[float, ...]
"""Values of `training.class_weights`."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the task, its headline metric for each class, and fidelity to the teacher.

    The task defines which measures fidelity holds; a value is None if it is undefined.
    """

    metrics: dict[str, float]
    per_class: list[float | None]
    fidelity: dict[str, float | None] | None
    split: str = ""
    """Split that was measured: `test`, or `validation` if there are no test images."""
    images: int = 0
    """Number of its images."""
    origin: str = ""
    """Where its images come from."""


@dataclass(frozen=True)
class Outcomes:
    """What single test images contribute to the headline metric, for a verdict's interval.

    Either `correct`, where the metric is an accuracy, or `resampled`.
    """

    metric: str
    """The headline metric."""
    images: int
    """Number of test images that count."""
    correct: str = ""
    """One character for each of them, in their order: 1 if the prediction is correct, else 0."""
    resampled: list[float] = field(default_factory=list)
    """The metric on each resample of the test images; see `metrics.resampling`."""


class Task(ABC):
    """Loss on labels, metrics and fidelity of an experiment; subclasses are final and immutable."""

    uses_labels: ClassVar[bool] = True
    """False if a run needs no labels."""

    exclusive_classes: ClassVar[bool] = True
    """True if an image, or a location in it, has exactly one class: logits go through a softmax."""

    truth: ClassVar[Literal["class", "classes", "objects"]] = "class"
    """Ground truth of an image that the data must provide."""

    headline: ClassVar[str]
    """Name of the metric, of the task or of fidelity, that ranks students; higher is better."""

    class_weights: Tensor | None = None
    """Weights of the classes in the loss on training labels; None weighs all alike."""

    @classmethod
    def of(cls, training: Training) -> "Task":
        """Build the task with the loss that `training` selects; most tasks have one loss only."""
        return cls()

    def weighted(
        self, setting: ClassWeights, labels: Int[Tensor, "images ..."], names: Sequence[str]
    ) -> "Task":
        """Return the task with weights of the classes, as `training.class_weights` says.

        Args:
            setting: Value of that key.
            labels: Labels of the training images.
            names: Names of the classes.

        Raises:
            RecipeError: There are not as many weights as classes, or the task has no loss that
                could have them.
        """
        if setting == "none":
            return self
        task = copy(self)
        listed = None if setting == "balanced" else setting
        task.class_weights = self._weights_of(labels, names, listed)
        return task

    def _weights_of(
        self,
        labels: Int[Tensor, "images ..."],
        names: Sequence[str],
        listed: Sequence[float] | None,
    ) -> Tensor:
        """Return the weights of the classes; `RecipeError` if the task has no use for them."""
        raise RecipeError(
            "training.class_weights is for the loss on labels of the tasks classification and "
            "multilabel: leave it out (data.balance shows images of rare classes more often)."
        )

    @abstractmethod
    def loss(
        self, student: Features, batch: Batch, class_weights: Tensor | None = None
    ) -> Float[Tensor, ""] | None:
        """Return the mean loss over the labelled images of the global batch.

        None if the task has no loss, or if the student computes its own.

        Args:
            student: Features of the student.
            batch: Images and labels.
            class_weights: The attribute of that name, on the device of the batch.
        """

    @abstractmethod
    def collect(self, features: Features, batch: Batch) -> Outputs:
        """Select the outputs of a batch that metrics need, with its `index` and labels."""

    @abstractmethod
    def measure(self, outputs: Outputs, *, finished: bool = False) -> Evaluation:
        """Compute metrics of a network's own outputs, without any fidelity.

        Args:
            outputs: Outputs of the network.
            finished: Compute what takes too long for every epoch, too.
        """

    @abstractmethod
    def fidelity(
        self, student: Outputs, teacher: Outputs, *, finished: bool = False
    ) -> dict[str, float | None]:
        """Compute how close a student's outputs are to its teacher's; None if undefined."""

    def judged_by(self, measured: Mapping[str, Any]) -> str:
        """Return the metric by which finished students are judged, of those of the control."""
        return self.headline

    def outcomes(self, student: Outputs, teacher: Outputs | None = None) -> Outcomes | None:
        """Return what single images contribute; None if the metric of verdicts has no such form."""
        return None

    def concatenate(self, batches: Sequence[Outputs]) -> Outputs:
        """Concatenate the outputs of all batches of all processes, in the order of the index."""
        outputs = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        order = outputs["index"].argsort()
        return {name: x[order] for name, x in outputs.items()}
