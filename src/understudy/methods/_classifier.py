"""The teacher's classifier, frozen, for the methods that let it read the student's features."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes, TeacherOutputs


@final
class Classifier(nn.Module):
    """A linear layer whose values are buffers: saved, and never trained.

    Args:
        method: Who asks, for the message.
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
        self.method, classes = method, teacher.vector("logits")
        self.register_buffer("weight", torch.zeros(classes, teacher.vector("penultimate")))
        self.register_buffer("bias", torch.zeros(classes))

    def copy(self, teacher: TeacherOutputs) -> None:
        """Take the teacher's values.

        Raises:
            ShapeError: Its classifier is not one linear layer on its penultimate feature.
        """
        weight, bias = teacher.classifier_weight, teacher.classifier_bias
        if weight is None or weight.shape != self.weight.shape:
            found = "none" if weight is None else f"one of shape {tuple(weight.shape)}"
            raise ShapeError(
                f"{self.method} reuses the teacher's linear classifier of shape "
                f"{tuple(self.weight.shape)}, but this teacher has {found}; name its path with "
                "`classifier`."
            )
        self.weight.copy_(weight.detach())
        self.bias.zero_()
        if bias is not None:
            self.bias.copy_(bias.detach())

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return F.linear(x, self.weight, self.bias)
