"""No labels: the student learns from the teacher alone and is judged by fidelity to it."""

from typing import ClassVar, final

from understudy.batch import Batch
from understudy.features import Features
from understudy.tasks import _vectors
from understudy.tasks._task import Evaluation, Outputs, Task


@final
class Unlabelled(Task):
    """Any images, labels ignored."""

    uses_labels: ClassVar[bool] = False
    headline: ClassVar[str] = "cka"

    def loss(self, student: Features, batch: Batch) -> None:
        """There is none."""

    def kept(self, features: Features, batch: Batch) -> Outputs:
        """Logits and penultimate features."""
        return _vectors.kept(features, batch)

    def evaluate(self, student: Outputs, teacher: Outputs | None) -> Evaluation:
        """Fidelity alone, as in classification."""
        close = _vectors.fidelity(student, teacher, _vectors.CLASSES) if teacher else None
        return Evaluation({}, [], close)
