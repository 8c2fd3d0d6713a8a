"""The teacher's classifier, frozen, applied to the student's projected features."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes, TeacherOutputs


@final
class Classifier(nn.Module):
    """Linear layer whose weight and bias are buffers: saved with the method, never trained.

    Args:
        method: Name of the method, for error messages.
        teacher: Shapes of the teacher; needs `logits` and the vector `penultimate`.
    """

    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, " classes"]

    def __init__(self, method: str, teacher: Shapes) -> None:
        super().__init__()
        if "logits" not in teacher:
            raise ShapeError(
                f"{method} reuses the teacher's classifier, but {teacher.owner} has no logits; use "
                "a method that needs none, such as lshfm or pefd."
            )
        if not teacher.linear_classifier:
            raise ShapeError(
                f"{method} reuses the teacher's classifier as a linear layer, but the logits of "
                f"{teacher.owner} are computed of its penultimate feature in another way (a scale, "
                "a norm, cosines, an activation); use a method that needs none, such as lshfm or "
                "pefd."
            )
        if "penultimate/dist" in teacher:
            raise ShapeError(
                f"{method} reuses the teacher's classifier, but the logits of {teacher.owner} are "
                "the mean of two classifiers of two vectors; use a method that needs none, such as "
                "lshfm or pefd."
            )
        self.method, classes = method, teacher.vector("logits")
        self.register_buffer("weight", torch.zeros(classes, teacher.vector("penultimate")))
        self.register_buffer("bias", torch.zeros(classes))

    def copy(self, teacher: TeacherOutputs) -> None:
        """Copy the teacher's weight and bias.

        Raises:
            ShapeError: The teacher's classifier is not one linear layer on its penultimate feature.
        """
        weight, bias = teacher.classifier_weight, teacher.classifier_bias
        if weight is None or weight.shape != self.weight.shape:
            actual = "none" if weight is None else f"one of shape {tuple(weight.shape)}"
            raise ShapeError(
                f"{self.method} reuses the teacher's linear classifier of shape "
                f"{tuple(self.weight.shape)}, but this teacher has {actual}; name its path with "
                "`classifier`."
            )
        self.weight.copy_(weight.detach())
        self.bias.zero_()
        if bias is not None:
            self.bias.copy_(bias.detach())

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Compute the logits of features."""
        return F.linear(x, self.weight, self.bias)
