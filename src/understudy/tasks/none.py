"""No labels: the student learns from the teacher alone and is judged by fidelity to it."""

from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.tasks._task import Task


@final
class Unlabelled(Task):
    """Any images, labels ignored."""

    uses_labels: ClassVar[bool] = False
    headline: ClassVar[str] = "cka"

    def loss(self, student: Features, batch: Batch) -> None:
        """There is none."""

    def metrics(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> dict[str, float]:
        """There are none: see the fidelity."""
        return {}

    def per_class(
        self, logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
    ) -> list[float | None]:
        """There is none."""
        return []
