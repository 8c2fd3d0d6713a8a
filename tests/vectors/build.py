"""Methods, batches, teachers and networks of the library, made to fit recorded arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.methods import Method

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Outputs:
    """A teacher's outputs for a whole training set, delivered in batches."""

    features: Features
    labels: Tensor | None = None
    classifier_weight: Tensor | None = None
    classifier_bias: Tensor | None = None
    batch: int = 16

    @property
    def num_images(self) -> int:
        return len(next(iter(self.features.values())))

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        for start in range(0, self.num_images, self.batch):
            part = slice(start, start + self.batch)
            features = {name: x[part] for name, x in self.features.items()}
            labels = None if self.labels is None else self.labels[part]
            index = torch.arange(self.num_images)[part]
            yield features, replace(batch(len(index), labels), index=index)


def batch(rows: int, labels: Any = None) -> Batch:
    return Batch.of(torch.zeros(rows, 3, 1, 1), None if labels is None else torch.as_tensor(labels))


def shapes(owner: str, features: Features) -> Shapes:
    return Shapes(owner, {name: tuple(x.shape[1:]) for name, x in features.items()})


def method(cls: type[M], student: Features, teacher: Features, **hyper: Any) -> M:
    """A method built for these features, in their precision."""
    built = cls(shapes("student", student), shapes("teacher", teacher), **hyper)
    (first, *_) = student.values()
    return built.to(first.dtype)


def load(target: nn.Module, **arrays: Any) -> None:
    """Put recorded parameters and buffers into a module, leaving the others as they are."""
    state = target.state_dict()
    unknown = arrays.keys() - state.keys()
    assert not unknown, f"the module has no {unknown}"
    target.load_state_dict(state | {name: torch.as_tensor(x) for name, x in arrays.items()})


def linear(weight: Any, bias: Any) -> nn.Linear:
    """A linear layer with recorded values."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs).to(torch.as_tensor(weight).dtype)
    load(layer, weight=weight, bias=bias)
    return layer
