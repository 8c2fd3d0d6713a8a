"""Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.

    L = T² · (1/B) Σᵢ KL( softmax(tᵢ / T) ‖ softmax(sᵢ / T) )

s, t ∈ R^{B×K} are the logits of student and teacher, T the temperature, B the batch size. T² keeps
the size of the gradient independent of T. The form is that of the code bases of CRD
(github.com/HobbitLong/RepDistiller) and mdistiller, which agree. With `projector`, the student's
logits first pass a linear layer, as in Chen et al., "Understanding the Effects of Projectors in
Knowledge Distillation", 2023, arXiv 2310.17183 (github.com/chenyd7/PEFD): s ← V s + d. With
`standardise`, the logits of both networks are scaled to mean 0 and deviation 1 in each row, as in
Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01528.

If classes do not exclude each other (multi-label images, detectors with a sigmoid for each class),
each class is a distribution of its own, over present and absent:

    L = T² · 1/(B·K) Σᵢₖ KL( σ(tᵢₖ / T) ‖ σ(sᵢₖ / T) )

If a row holds several softmaxes (the boxes of one location of SSD), each counts as a row.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Positive
from understudy.errors import RecipeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, binary_kl_divergence, kl_divergence
from understudy.methods._logits import standardised
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def kd(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    temperature: Positive = 4.0,
) -> Float[Tensor, " batch"]:
    """Compute T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of each row."""
    return temperature**2 * kl_divergence(student, teacher, temperature)


def binary_kd(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    temperature: Positive = 4.0,
) -> Float[Tensor, " batch"]:
    """Compute T² · KL(σ(teacher / T) ‖ σ(student / T)), averaged over the classes of each row."""
    return temperature**2 * binary_kl_divergence(student, teacher, temperature).mean(1)


@final
class KD(Method):
    """Knowledge distillation: the student's class probabilities follow the teacher's.

    Published weights: 0.9, with 0.1 on the task loss (CIFAR-100, T = 4); 0.5 and 0.5 (ImageNet,
    T = 1); 1, with the detector's own losses (COCO, T = 1). That of the task loss is the recipe's
    `task_weight`: the recipes of the tables set it, and it is 1 elsewhere.

    Args:
        student: Shapes of the student; needs `logits`.
        teacher: Shapes of the teacher; needs `logits` of the same classes.
        temperature: T, softens both distributions.
        projector: Pass the student's logits through a trained linear layer first.
        standardise: Scale the logits of each row to mean 0 and deviation 1 before the temperature.
    """

    published_weight: ClassVar[float] = 0.9
    trains_classifier: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "multilabel": {"weight": 1.0},
        "detection": {"weight": 1.0, "temperature": 1.0},
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        temperature: Positive = 4.0,
        projector: bool = False,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        classes = same_classes("kd", student, teacher)
        if standardise and not student.softmaxes:
            raise RecipeError(
                "'standardise' of kd compares the classes of an image with each other, but these "
                "classes do not exclude each other; set it to false."
            )
        self.compare = kd if student.softmaxes else binary_kd
        self.softmaxes = max(1, student.softmaxes)
        self.temperature, self.standardise = temperature, standardise
        self.projector = nn.Linear(classes, classes) if projector else nn.Identity()

    def projected(self, student: Features) -> Features:
        """Return the logits after the trained layer."""
        if isinstance(self.projector, nn.Identity):
            return {}
        return {"logits": self.projector(student["logits"])}

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the logits."""
        return ("logits",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = self.projector(student["logits"]), teacher["logits"]
        # One row for each softmax.
        s, t = (x.unflatten(1, (self.softmaxes, -1)).flatten(0, 1) for x in (s, t))
        if self.standardise:
            s, t = standardised(s), standardised(t)
        return batch_mean(self.compare(s, t, self.temperature))
