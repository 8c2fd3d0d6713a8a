"""No labels: the student learns only from the teacher, and is ranked by fidelity to it.

Labels of test images, where there are any, are used to measure the finished student, and nothing
else: `knn` classifies each image by its 20 nearest others (weights exp(cosine / 0.07), as DINO) and
`linear` by a linear probe on the four other fifths of the images, both on penultimate features and
in percent. `understudy probe` measures both in the published form, from training to test images.
Without labels, `knn_agreement` is the share of an image's 20 nearest others that it has in both
networks.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import Batch, labelled
from understudy.features import Features
from understudy.metrics import linear_probe, neighbours, resampling
from understudy.tasks import _image_outputs
from understudy.tasks._task import Evaluation, Outcomes, Outputs, Task

FEATURE = "penultimate"


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

    def measure(self, outputs: Outputs, *, finished: bool = False) -> Evaluation:
        """Compute `knn` and `linear` of a finished network, on the images with labels."""
        correct = _knn_correct(outputs) if finished else None
        if correct is None:
            return Evaluation({}, [], None)
        metrics = {"knn": _percent(correct), "linear": _percent(_linear_correct(outputs))}
        return Evaluation(metrics, [], None)

    def fidelity(
        self, student: Outputs, teacher: Outputs, *, finished: bool = False
    ) -> dict[str, float | None]:
        """Compute fidelity as in classification, and `knn_agreement` of a finished student.

        `agreement` and `kl` are None unless the teacher's outputs have its scores: they compare
        classifiers, of which the student's may be untrained.
        """
        measured = _image_outputs.fidelity(student, teacher, _image_outputs.SINGLE_LABEL)
        if finished:
            shares = _shared_neighbours(student, teacher)
            measured["knn_agreement"] = float(shares.mean()) if len(shares) else None
        return measured

    def judged_by(self, measured: Mapping[str, Any]) -> str:
        """Return `knn` if it was measured, else `knn_agreement`."""
        return "knn" if "knn" in measured else "knn_agreement"

    def outcomes(self, student: Outputs, teacher: Outputs | None = None) -> Outcomes | None:
        """Return which labelled images `knn` classifies correctly, or else resampled agreement."""
        if (correct := _knn_correct(student)) is not None:
            text = "".join("1" if hit else "0" for hit in correct.tolist())
            return Outcomes("knn", len(text), correct=text)
        if not teacher or not len(shares := _shared_neighbours(student, teacher)):
            return None
        counts = resampling.image_counts(len(shares)).double()
        resampled = (counts @ shares / len(shares)).tolist()
        return Outcomes("knn_agreement", len(shares), resampled=resampled)


def _labelled(outputs: Outputs) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, " rows"], int]:
    """Return features, classes and the number of classes of the images that have a label."""
    labels = outputs["labels"]
    if labels.dim() != 1:
        return outputs[FEATURE][:0], labels.new_zeros(0), 0
    known = labelled(labels)
    labels = labels[known]
    return outputs[FEATURE][known], labels, int(labels.max()) + 1 if len(labels) else 0


def _knn_correct(outputs: Outputs) -> Tensor | None:
    """Return which labelled images their neighbours classify correctly; None for one class."""
    features, labels, classes = _labelled(outputs)
    if not len(labels) or (labels == labels[0]).all():
        return None
    near = neighbours.nearest(features, features, neighbours.NEIGHBOURS, leave_out_self=True)
    return neighbours.knn_scores(near, labels, classes).argmax(1) == labels


def _linear_correct(outputs: Outputs) -> Tensor:
    features, labels, classes = _labelled(outputs)
    return linear_probe.predicted_by_folds(features, labels, classes) == labels


def _shared_neighbours(student: Outputs, teacher: Outputs) -> Float[Tensor, " images"]:
    """Return the share of each image's neighbours that it has in both networks."""
    near = [
        neighbours.nearest(x[FEATURE], x[FEATURE], neighbours.NEIGHBOURS, leave_out_self=True)
        for x in (student, teacher)
    ]
    return neighbours.overlap(*near)


def _percent(correct: Tensor) -> float:
    return 100 * float(correct.double().mean()) if len(correct) else 0.0
