"""Wang et al.: "Improving Knowledge Distillation via Regularizing Feature Direction and Norm".

ECCV 2024, arXiv 2305.17007; code: github.com/WangYZ1608/Knowledge-Distillation-via-ND.

    L = 1/B Σᵢ [ 1 − ⟨sᵢ, e_{yᵢ}⟩ / max(‖sᵢ‖, ‖tᵢ‖) ],     e_k = c_k / ‖c_k‖

s, t ∈ R^{B×D} are the penultimate features of student and teacher, c_k ∈ R^D the mean of the
teacher's features over the training images of class k, y the labels, B the batch size. While
‖sᵢ‖ < ‖tᵢ‖ the gradient along e_y both lengthens and turns sᵢ; from there on it only turns it.
KD++ is this loss with `kd`. For an image with several classes the loss is averaged over its
classes; an image without any class has no loss. In a detector the rows are locations with one
class each, which may be the background.

If the dimensions differ, s first passes BatchNorm → Dropout(0.5) → Linear, a projector that is
trained with the student and dropped afterwards.

Ablations (`terms`): `direction`, 1 − cos(s, c_y); `norm`, (‖s‖ − ‖t‖)²; `sifn`, the stepwise
increasing norm of Xu et al., "Larger Norm More Transferable", ICCV 2019, arXiv 1811.07456, whose
loss is (sg[‖s‖] + r − ‖s‖)² with sg the stop-gradient.

For a mixed image (mixup, cutmix), c is the mean of its two classes weighted by their shares, with
label smoothing spread over the classes of the batch: `mixed_means`, as published for DeiT++, which
is this loss (weight 1.5) with `deit` (weight 0.5) and weight 1 on the task loss.

Differences from the released code: class means are computed over clean images, where the code,
likely by oversight, takes one augmented view (`means="augmented"`); they are not rounded to four
decimals; a row where both features, or the class mean, are zero has the loss 1 and gradient zero,
where the code has NaN; an image without label takes the teacher's predicted class, if the teacher
has logits of the student's classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.batch import UNLABELLED, Batch
from understudy.config.limits import NonNegative
from understudy.errors import ShapeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import EPS, batch_mean, cosine, global_sum, norm
from understudy.methods._logits import labels_or_predictions
from understudy.methods._method import Method
from understudy.methods._projectors import BatchNorm

Terms = Literal["nd", "direction", "norm", "sifn"]


def nd(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    center: Float[Tensor, "batch dim"],
) -> Float[Tensor, " batch"]:
    """Compute 1 − ⟨s, e⟩ / max(‖s‖, ‖t‖) of each row, e its class mean scaled to length 1."""
    norm_s, norm_t = norm(student), norm(teacher)
    # Of equal norms take the student's with its full gradient; `torch.maximum` would halve it.
    longer = torch.where(norm_t > norm_s, norm_t, norm_s)
    # If both features are zero, dividing by infinity gives the loss 1 and gradient 0, not NaN.
    norm_c = torch.where(longer.detach() > EPS, norm(center), torch.inf)
    return 1 - (student * center).sum(-1) / norm_c / longer


def direction(
    student: Float[Tensor, "batch dim"], center: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Compute 1 − cos(s, c) of each row."""
    return 1 - cosine(student, center)


def norm_gap(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Compute (‖s‖ − ‖t‖)² of each row."""
    return (norm(student) - norm(teacher)).square()


def sifn(student: Float[Tensor, "batch dim"], step: float) -> Float[Tensor, " batch"]:
    """Compute (sg[‖s‖] + r − ‖s‖)² of each row: always r², with a constant push outwards."""
    length = norm(student)
    return (length.detach() + step - length).square()


def mixed_means(
    center: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    share: Float[Tensor, " batch"],
    smoothing: float,
    classes: int,
) -> Float[Tensor, "batch dim"]:
    """Compute the class means of mixed images (mixup, cutmix), as in DeiT++.

        c̃ᵢ = λᵢ c̄(yᵢ) + (1 − λᵢ) c̄(y′ᵢ),     c̄(k) = (1 − ε) c_k + ε/K Σⱼ c_{yⱼ}

    Args:
        center: Class mean c_y of each image.
        other: Class mean c_y′ of the image mixed into it.
        share: λ, share of the image itself.
        smoothing: ε of label smoothing; spread over the class means of the batch, as published.
        classes: K, number of classes.
    """
    lam = share.unsqueeze(1)
    mean = (1 - smoothing) * (lam * center + (1 - lam) * other)
    return mean + smoothing / classes * global_sum(center.sum(0)) if smoothing else mean


@final
class ND(Method):
    """Norm and direction: the student's feature grows along the teacher's mean of its class.

    Published weight: 0.5 to 4, tuned for each pair of networks, with `kd` and weight 1 on the task
    loss; 1 to 1.5 for detection. No weight is published for multi-label images; the default is
    smaller in proportion to that of lshfm.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        means: Whether class means are computed over clean or augmented training images. Clean
            images involve no random draw, and are what the teacher classifies when deployed.
        terms: The published loss, or one of its ablations.
        step: r of `sifn`.
        embedding_std: Standard deviation of the embedding's initial weights, where dimensions
            differ; None is PyTorch's uniform default, as in the CIFAR-100 code; the ImageNet code
            has 0.01.
        embedding_bias_std: The same of its initial biases: 0 on CIFAR-100 and in ReviewKD++, 0.01
            in the ImageNet code of KD++ and DKD++.
    """

    published_weight: ClassVar[float] = 2.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "multilabel": {"weight": 0.2},
        "detection": {"weight": 1.0},
    }
    class_means: Float[Tensor, "classes dim"]

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        means: Literal["clean", "augmented"] = "clean",
        terms: Terms = "nd",
        step: NonNegative = 1.0,
        embedding_std: NonNegative | None = None,
        embedding_bias_std: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        dim_s, dim_t = student.vector("penultimate"), teacher.vector("penultimate")
        self.means, self.terms, self.step = means, terms, step
        self.embedding = (
            nn.Identity()
            if dim_s == dim_t
            else _embedding(dim_s, dim_t, std=embedding_std, bias_std=embedding_bias_std)
        )
        classes = _classes(student, teacher)
        self.predicts_labels = "logits" in teacher and teacher.vector("logits") == classes
        self.register_buffer("class_means", torch.zeros(classes, dim_t))
        self.prepared = terms in ("norm", "sifn")

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate and, to predict labels, the logits."""
        return ("penultimate", "logits") if self.predicts_labels else ("penultimate",)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Average the teacher's features over the training images of each class.

        Raises:
            ShapeError: A label exceeds the classes of the logits, or is not known.
        """
        # Sums over all images lose digits in float32.
        sums = torch.zeros(self.class_means.shape, dtype=torch.float64)
        counts = torch.zeros(len(sums), dtype=torch.float64)
        for features, batch in teacher.batches(augmented=self.means == "augmented"):
            t, classes = features["penultimate"].cpu().double(), batch.labels.cpu()
            if classes.ndim == 2:
                # An image with several classes counts in the mean of each.
                images, classes = (classes == 1).nonzero(as_tuple=True)
                t = t[images]
            else:
                classes = self._classes(batch.labels, features).cpu()
            _check(classes, len(sums))
            sums.index_add_(0, classes, t)
            counts += classes.bincount(minlength=len(sums))
        self.class_means.copy_(sums / counts.clamp_min(1).unsqueeze(1))
        self.prepared = True

    def projected(self, student: Features) -> Features:
        """Return the feature after the projector; empty if the dimensions are equal."""
        if isinstance(self.embedding, nn.Identity):
            return {}
        return {"penultimate": self.embedding(student["penultimate"])}

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; an unlabelled image takes the teacher's predicted class."""
        s, t = self.embedding(student["penultimate"]), teacher["penultimate"]
        if batch.labels.ndim == 2:
            # Every image against every class mean, of which those of its classes are averaged.
            losses = self._rows(s.unsqueeze(1), t.unsqueeze(1), self.class_means)
            return batch_mean(*_mean_over_classes(losses, batch.labels == 1))
        center, known = self._centers(teacher, batch)
        return batch_mean(self._rows(s, t, center), known)

    def _centers(
        self, teacher: Features, batch: Batch
    ) -> tuple[Float[Tensor, "batch dim"], Bool[Tensor, " batch"] | None]:
        """Return c of each image, and which images have one; None for all."""
        if batch.soft is not None:  # c̃ᵢ = Σ_k pᵢₖ c_k, of which `mixed_means` is a case
            return batch.soft.to(self.class_means) @ self.class_means, None
        own, mixed = self._classes(batch.labels, teacher), batch.mixed
        # An unknown class indexes the last mean, and is masked: `prepare` refuses such images, but
        # a caller may still pass one to the loss.
        center, known = self.class_means[own], None if self.predicts_labels else own >= 0
        if mixed is None:
            return center, known
        other = self._classes(mixed.labels, teacher)
        if known is not None:
            center, known = center.where(known.unsqueeze(1), 0.0), known & (other >= 0)
        means, count = self.class_means[other], len(self.class_means)
        return mixed_means(center, means, mixed.share, batch.smoothing, count), known

    def _rows(self, s: Tensor, t: Tensor, center: Tensor) -> Float[Tensor, " batch"]:
        if self.terms == "nd":
            return nd(s, t, center)
        if self.terms == "direction":
            return direction(s, center)
        return norm_gap(s, t) if self.terms == "norm" else sifn(s, self.step)

    def _classes(self, labels: Int[Tensor, " batch"], teacher: Features) -> Int[Tensor, " batch"]:
        return labels_or_predictions(labels, teacher) if self.predicts_labels else labels


def _mean_over_classes(
    rows: Float[Tensor, "batch classes"], present: Bool[Tensor, "batch classes"]
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Average over the classes present in each image, and return which images have any."""
    counts = present.sum(1)
    return torch.where(present, rows, 0).sum(1) / counts.clamp_min(1), counts > 0


def _check(classes: Int[Tensor, " batch"], count: int) -> None:
    if (classes >= count).any():
        raise ShapeError(
            f"A training image has the label {int(classes.max())}, but the logits have only "
            f"{count} classes, counted from 0; use networks with all classes of the data."
        )
    if (classes == UNLABELLED).any():
        raise ShapeError(
            "A training image has no label, and the teacher has no logits of the student's classes "
            "to predict it; nd needs one of them."
        )


def _classes(student: Shapes, teacher: Shapes) -> int:
    for shapes in (student, teacher):
        if shapes.classes is not None:
            return shapes.classes
    raise ShapeError(
        f"nd needs classes, but neither {student.owner} nor {teacher.owner} has logits; "
        "use lshfm or pefd, which need none."
    )


def _embedding(student: int, teacher: int, *, std: float | None, bias_std: float) -> nn.Sequential:
    """Batch normalisation, dropout and a linear layer; dropped after training."""
    linear = nn.Linear(student, teacher)
    if std is not None:
        nn.init.normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    if bias_std:
        nn.init.normal_(linear.bias, std=bias_std)
    return nn.Sequential(BatchNorm(student), nn.Dropout(0.5), linear)
