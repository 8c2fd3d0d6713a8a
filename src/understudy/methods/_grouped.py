"""One method for several groups of places, such as the levels of SSD, whose features differ."""

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
    """The mean over all rows of what one method each says of every group.

    Args:
        methods: Group → the method that was built for it.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.unbounded_loss = any(method.unbounded_loss for method in methods.values())

    @property
    def each(self) -> dict[str, Method]:
        """The method of every group."""
        return {group: cast(Method, method) for group, method in self.methods.items()}

    @property
    def reads(self) -> tuple[str, ...]:
        """What each reads of its group."""
        return tuple(f"{group}/{name}" for group, each in self.each.items() for name in each.reads)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Let each measure its group, in a pass of its own if it needs one."""
        for group, method in self.each.items():
            method.prepare(teacher.group(group))

    def projected(self, student: Features) -> Features:
        """What each makes of its group."""
        return {
            f"{group}/{name}": x
            for group, method in self.each.items()
            for name, x in method.projected(of_group(student, group)).items()
        }

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The mean over all rows; the rows of a batch follow each other group by group."""
        losses, rows = [], []
        for group, (own, part) in by_group(student, batch, self.each).items():
            losses.append(self.each[group](own, of_group(teacher, group), part))
            rows.append(len(part))
        weights = losses[0].new_tensor(rows) / sum(rows)
        total: Tensor = (weights * torch.stack(losses)).sum()
        return total
