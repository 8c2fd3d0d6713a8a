"""What a task is: the loss on labels and the metrics of a student."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features


class Task(ABC):
    """The supervised side of an experiment; a subclass is final and has no state."""

    uses_labels: ClassVar[bool] = True
    """False if a run needs no label at all."""

    headline: ClassVar[str]
    """The metric, of the task or of fidelity, by which students are ranked; higher is better."""

    @abstractmethod
    def loss(self, student: Features, batch: Batch) -> Float[Tensor, ""] | None:
        """Mean loss over the labelled images of the global batch; None if there is no such loss."""

    @abstractmethod
    def metrics(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> dict[str, float]:
        """Metrics over a whole evaluation set; accuracies in percent."""

    @abstractmethod
    def per_class(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> list[float | None]:
        """The headline metric of each class in percent; None where the class has no image."""
