"""What a method is: the contract every file in this folder keeps."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Extendable, Features, Shapes, TeacherOutputs


class Method(nn.Module, ABC):
    """One published way to turn the features of both networks into one loss.

    A subclass is final. Its `__init__(student, teacher, *, hyper-parameters)` receives the
    `Shapes` of both networks, builds whatever is trained beside the student (projectors), and
    raises `ShapeError` there if it cannot work. It never owns a network, a weight, a label loss
    or an epoch counter.
    """

    published_weight: ClassVar[float] = 1.0
    """Weight of this loss in the paper's CIFAR-100 experiments; the default where a recipe names none."""

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Add to the student, in place, the layers that stay in it; most methods add none."""

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the teacher once before training; what is measured is kept in buffers."""

    @abstractmethod
    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; features arrive in float32 or float64, autocast is off."""

    @final
    def forward(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The loss in full precision, whatever autocast is active and however features arrive."""
        with torch.autocast(batch.images.device.type, enabled=False):
            return self.loss(_full_precision(student), _full_precision(teacher), batch)


def _full_precision(features: Features) -> Features:
    return {
        name: x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        for name, x in features.items()
    }
