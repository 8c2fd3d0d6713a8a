"""One method for several groups of locations, such as the levels of SSD, whose widths differ."""

from collections.abc import Mapping
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, TeacherOutputs, by_group, of_group
from understudy.methods._method import Method


@final
class Grouped(Method):
    """Mean over all rows of the losses of one method, built once for each group.

    Args:
        methods: Group → the method built for it.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.unbounded_loss = any(method.unbounded_loss for method in methods.values())

    @property
    def group_methods(self) -> dict[str, Method]:
        """Group → its method."""
        return {group: cast(Method, method) for group, method in self.methods.items()}

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: those of each method, with its group's prefix."""
        return tuple(
            f"{group}/{name}"
            for group, method in self.group_methods.items()
            for name in method.reads
        )

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Prepare each method on its own group, in one pass over the images for each group."""
        for group, method in self.group_methods.items():
            method.prepare(teacher.group(group))

    def projected(self, student: Features) -> Features:
        """Return the projected features of each method, with its group's prefix."""
        return {
            f"{group}/{name}": x
            for group, method in self.group_methods.items()
            for name, x in method.projected(of_group(student, group)).items()
        }

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the mean over all rows; the batch holds the rows group after group."""
        losses, rows = [], []
        methods = self.group_methods
        for group, (group_student, group_batch) in by_group(student, batch, methods).items():
            group_teacher = of_group(teacher, group)
            losses.append(methods[group](group_student, group_teacher, group_batch))
            rows.append(len(group_batch))
        # Each loss is a mean over its group: weighted by rows, their sum is the mean over all rows.
        weights = losses[0].new_tensor(rows) / sum(rows)
        total: Tensor = (weights * torch.stack(losses)).sum()
        return total
