"""Chooses the logits in what a network returns: a tensor, a tuple or a dictionary of tensors."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from understudy.errors import NetworkError
from understudy.models.taps import first_tensor

LOGGER = logging.getLogger("understudy")

Key = tuple[Any, ...]
"""Keys and positions that lead to a tensor inside what a network returns; () for the first one."""

_KNOWN = ("logits", "pooler_output", "last_hidden_state")
"""Keys of Hugging Face models, the one to be taken first."""


def key_of_logits(value: Any, is_named: Callable[[Tensor], bool], name: str) -> Key:
    """Return the key of the logits, or of the vector of a network without a classifier.

    Args:
        value: What the network returned.
        is_named: True for the tensor that the classifier that the user names has computed.
        name: Name of the network for errors.

    Raises:
        NetworkError: Several tensors can be the logits.
    """
    if isinstance(value, Mapping):
        for known in _KNOWN:
            if value.get(known) is not None:
                return (known,)
    tensors = list(_tensors(value))
    named = [key for key, x in tensors if is_named(x)]
    rows = [key for key, x in tensors if x.ndim == 2]
    if named:
        return named[0]
    if len(rows) > 1:
        listed = ", ".join(
            f"{'.'.join(map(str, key))} of shape {tuple(x.shape[1:])}" for key, x in tensors
        )
        raise NetworkError(
            f"{name} returns several tensors, and it is not certain which are the logits: "
            f"{listed}. Wrap it to return one, or name the layer that computes the right one by "
            "classifier: MODULE_PATH."
        )
    return rows[0] if rows else ()


class ClassifierOutput:
    """Forward hook of a classifier that keeps what it returned, to know it among other tensors.

    An object rather than a closure, so that a deep copy of a network has one of its own.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._tensor: Tensor | None = None

    def __deepcopy__(self, memo: object) -> "ClassifierOutput":
        """Copy the hook without the tensor of the last pass."""
        return ClassifierOutput()

    def __call__(self, module: object, args: object, kwargs: object, output: Any) -> None:
        """Keep the main tensor of the output."""
        self._calls, self._tensor = self._calls + 1, first_tensor(output)

    def clear(self) -> None:
        """Forget the passes before the next one."""
        self._calls, self._tensor = 0, None

    def take(self) -> Tensor | None:
        """Return what the classifier gave in the pass, if it was called once; release it."""
        tensor = self._tensor if self._calls == 1 else None
        self.clear()
        return tensor


def pick(
    value: Any, key: Key, classes: int | None = None, classified: Tensor | None = None
) -> Tensor | None:
    """Return the logits of what a network returned.

    In training a network may return more than in evaluation, such as auxiliary logits. Of several
    tensors as wide as the logits, the one that the classifier gave is taken, else the one called
    so.

    Args:
        value: What it returned.
        key: Where the logits are in evaluation.
        classes: Number of logits, if that is known.
        classified: What the classifier gave in this pass, if that is known.

    Raises:
        NetworkError: Several tensors can be the logits.
    """
    if isinstance(value, Tensor):
        return value
    inner = value
    for part in key:
        try:
            inner = inner[part]
        except (KeyError, IndexError, TypeError):
            inner = value
            break
    named = key[-1:] == ("logits",) and isinstance(inner, Tensor)
    if classes is not None and classified is not None and not named:
        known = [x for _, x in _rows(value, classes) if _is_same(x, classified)]
        if len(known) == 1:
            return known[0]
    if isinstance(inner, Tensor) or classes is None:
        return first_tensor(inner)
    return _as_wide(inner, classes)


def _is_same(x: Tensor, y: Tensor) -> bool:
    """Return True if two tensors are one, or views of one without a position."""
    same = x is y or (x._base if x._base is not None else x) is (
        y._base if y._base is not None else y
    )
    return same and x.numel() == y.numel() and x.data_ptr() == y.data_ptr()


def _rows(value: Any, classes: int) -> Iterator[tuple[Key, Tensor]]:
    """Iterate over the tensors that have a row of so many values for each image."""
    return ((key, x) for key, x in _tensors(value) if x.ndim == 2 and x.shape[1] == classes)


def _as_wide(value: Any, classes: int) -> Tensor | None:
    """Return the tensor of several that has a row of so many logits for each image."""
    rows = list(_rows(value, classes))
    named = [x for key, x in rows if key[-1:] == ("logits",)]
    if isinstance(field := getattr(value, "logits", None), Tensor):
        named.append(field)
    if len(rows) > 1 and not named:
        listed = ", ".join(".".join(map(str, key)) for key, _ in rows)
        raise NetworkError(
            f"In training the network returns several tensors of {classes} values, and it is not "
            f"certain which are the logits: {listed}. Call them 'logits' in a dictionary, return "
            "them alone, or as the output of a linear layer, unchanged."
        )
    return next(iter([*named, *(x for _, x in rows)]), first_tensor(value))


def _tensors(value: Any, key: Key = ()) -> Iterator[tuple[Key, Tensor]]:
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _tensors(inner, (*key, name))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _tensors(inner, (*key, position))


def warn_if_random(name: str, first: Tensor | None, second: Tensor) -> None:
    """Warn of a network that gives something else for the same images in evaluation mode.

    Args:
        name: Name of the network.
        first: Its output; None if it is not known.
        second: Its output in another pass over the same images.
    """
    if first is None or first.shape != second.shape or not bool(first.isfinite().all()):
        return
    if not torch.allclose(first, second.to(first), rtol=0, atol=0.01 * float(first.abs().max())):
        LOGGER.warning(
            f"{name} gives other outputs for the same images, also in evaluation mode: it draws "
            "random numbers, as by a functional dropout without `training=self.training`, so that "
            "neither a teacher nor a measured student has one answer."
        )


def as_row(logits: Tensor) -> Tensor:
    """Return the logits of a map of one position, as a 1×1 convolution gives them, as vectors."""
    return logits.flatten(1) if logits.ndim > 2 and logits.shape[2:].numel() == 1 else logits
