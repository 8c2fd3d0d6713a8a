"""Chooses the logits in what a network returns: a tensor, a tuple or a dictionary of tensors."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from understudy.errors import NetworkError
from understudy.models.taps import first_tensor

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


def pick(value: Any, key: Key, classes: int | None = None) -> Tensor | None:
    """Return the logits of what a network returned.

    In training a network may return more than in evaluation, such as auxiliary logits. Of several
    tensors as wide as the logits, the one called so is taken, else the first one of a tuple.

    Args:
        value: What it returned.
        key: Where the logits are in evaluation.
        classes: Number of logits, if that is known.

    Raises:
        NetworkError: A mapping has several tensors that can be the logits.
    """
    inner = value
    for part in key:
        try:
            inner = inner[part]
        except (KeyError, IndexError, TypeError):
            inner = value
            break
    if isinstance(inner, Tensor) or classes is None:
        return first_tensor(inner)
    return _as_wide(inner, classes)


def _as_wide(value: Any, classes: int) -> Tensor | None:
    """Return the tensor of several that has a row of so many logits for each image."""
    rows = [(key, x) for key, x in _tensors(value) if x.ndim == 2 and x.shape[1] == classes]
    named = [x for key, x in rows if key[-1:] == ("logits",)]
    if len(rows) > 1 and not named and isinstance(value, Mapping):
        listed = ", ".join(".".join(map(str, key)) for key, _ in rows)
        raise NetworkError(
            f"In training the network returns several tensors of {classes} values, and it is not "
            f"certain which are the logits: {listed}. Call them 'logits', or return them alone."
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
