"""No labels: the student learns only from the teacher, and is ranked by fidelity to it."""

from typing import ClassVar, final

from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features
from understudy.tasks import _image_outputs
from understudy.tasks._task import Evaluation, Outputs, Task


@final
class Unlabelled(Task):
    """Distillation on any images; labels are ignored."""

    uses_labels: ClassVar[bool] = False
    headline: ClassVar[str] = "cka"

    def loss(self, student: Features, batch: Batch, class_weights: Tensor | None = None) -> None:
        """Return None: this task has no loss."""

    def collect(self, features: Features, batch: Batch) -> Outputs:
        """Select index, labels, logits and penultimate features."""
        return _image_outputs.collect(features, batch)

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Compute fidelity only, as in classification."""
        fidelity = _image_outputs.fidelity(student, teacher, _image_outputs.SINGLE_LABEL)
        return Evaluation({}, [], fidelity)
