"""Methods and batches of the library, made to fit recorded arrays."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Shapes
from understudy.methods import Method

M = TypeVar("M", bound=Method)


def batch(rows: int, labels: Any = None) -> Batch:
    return Batch.of(torch.zeros(rows, 3, 1, 1), None if labels is None else torch.as_tensor(labels))


def method(cls: type[M], student: dict[str, Tensor], teacher: dict[str, Tensor], **hyper: Any) -> M:
    """A method built for these features, in their precision."""
    built = cls(_shapes("student", student), _shapes("teacher", teacher), **hyper)
    (first, *_) = student.values()
    return built.to(first.dtype)


def load(target: Method, **arrays: Any) -> None:
    """Put recorded parameters and buffers into a method, leaving the others as they are."""
    state = target.state_dict()
    unknown = arrays.keys() - state.keys()
    assert not unknown, f"the method has no {unknown}"
    target.load_state_dict(state | {name: torch.as_tensor(x) for name, x in arrays.items()})


def _shapes(owner: str, features: dict[str, Tensor]) -> Shapes:
    return Shapes(owner, {name: tuple(x.shape[1:]) for name, x in features.items()})
