"""What a task is: the loss on labels and the metrics of a student."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.recipe import Training
from understudy.features import Features

Outputs = dict[str, Tensor]
"""What evaluation keeps of some images, on the CPU; the task knows what the rows are of."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the task, its headline metric for each class, and fidelity to the teacher.

    What fidelity holds is said by the task; a value is None where it cannot be said.
    """

    metrics: dict[str, float]
    per_class: list[float | None]
    fidelity: dict[str, float | None] | None


class Task(ABC):
    """The supervised side of an experiment; a subclass is final and never changes."""

    uses_labels: ClassVar[bool] = True
    """False if a run needs no label at all."""

    exclusive_classes: ClassVar[bool] = True
    """Whether an image, or a place in it, has one class, so that logits go through a softmax."""

    truth: ClassVar[Literal["class", "classes", "objects"]] = "class"
    """What the data have to tell of an image."""

    headline: ClassVar[str]
    """The metric, of the task or of fidelity, by which students are ranked; higher is better."""

    @classmethod
    def of(cls, training: Training) -> "Task":
        """The task as a recipe wants it trained; most have nothing to choose."""
        return cls()

    @abstractmethod
    def loss(self, student: Features, batch: Batch) -> Float[Tensor, ""] | None:
        """Mean loss over the labelled images of the global batch.

        None if there is no such loss, or if the student computes its own.
        """

    @abstractmethod
    def kept(self, features: Features, batch: Batch) -> Outputs:
        """What is kept of the outputs for a batch, beside its `index` and its labels."""

    @abstractmethod
    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Compare a student's outputs with the labels, and with its teacher's outputs."""

    def joined(self, parts: Sequence[Outputs]) -> Outputs:
        """Outputs of all batches of all processes, in the order of the index."""
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        order = joined["index"].argsort()
        return {name: x[order] for name, x in joined.items()}
