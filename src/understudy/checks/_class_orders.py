"""Other orders of a teacher's classes: likely ones by their names, and the best by the images."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from understudy.config import groups as recipe
from understudy.data import class_names
from understudy.models import weights

Order = list[int]
"""Class of the data that each logit of a network stands for."""


def named_orders(classes: Sequence[str]) -> Iterator[tuple[str, Order]]:
    """Yield likely orders of the classes of the data, each with its name.

    Args:
        classes: Class names of the data, in their order.
    """
    numbers = range(len(classes))
    orders = {
        "alphabetical": sorted(numbers, key=lambda k: classes[k]),
        "alphabetical, without regard to case": sorted(
            numbers, key=lambda k: classes[k].casefold()
        ),
        "of the numbers in their names": sorted(numbers, key=lambda k: _natural(classes[k])),
        "reversed": [*reversed(numbers)],
        "shifted by one": [*numbers[1:], *numbers[:1]],
        "shifted by one to the other side": [*numbers[-1:], *numbers[:-1]],
    }
    known = [list(numbers)]
    for name, order in orders.items():
        if order not in known:
            known.append(order)
            yield name, order


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts `b10` after `b9`."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def renamed(teacher: recipe.Network, classes: Sequence[str], order: Order) -> list[str]:
    """Return the names of a teacher's logits, as `teacher.classes` takes them.

    Args:
        teacher: Names its weights, and perhaps its classes.
        classes: Class names of the data.
        order: Class of the data that each logit stands for, of the logits as they are compared:
            in the order of the data by the names known so far.
    """
    known = list(teacher.classes or weights.class_names(Path(teacher.weights)) or classes)
    places = class_names.positions(classes, known)
    if places is None:
        known, places = list(classes), list(range(len(classes)))
    for place, k in zip(places, order, strict=True):
        known[place] = classes[k]
    return known


def assigned_order(relation: Float[Tensor, "logits classes"]) -> Order:
    """Return the order that maximises the sum of the relations of each logit to its class."""
    _, order = linear_sum_assignment(relation.numpy(), maximize=True)
    return [int(k) for k in order]


def relation(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images ..."]
) -> Float[Tensor, "logits classes"]:
    """Return how often each logit is the largest of an image of each class.

    With several classes in an image: the mean standardised logit where the class is present.
    """
    classes = logits.shape[1]
    if labels.ndim == 1:
        largest = torch.nn.functional.one_hot(logits.argmax(1), classes).float()
        return largest.T @ torch.nn.functional.one_hot(labels, classes).float()
    standard = (logits - logits.mean(0)) / logits.std(0).clamp_min(1e-12)
    present = (labels == 1).float()
    return standard.T @ (present / present.sum(0).clamp_min(1))


def in_order(
    logits: Float[Tensor, "images classes"], order: Order
) -> Float[Tensor, "images classes"]:
    """Return the logits in the order of the data's classes."""
    result = torch.empty_like(logits)
    result[:, order] = logits
    return result


def cross_assigned(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, "images ..."]
) -> Float[Tensor, "images classes"]:
    """Return the logits in the best order: each half of the images in that which fits the other.

    An order always looks better on the images that it is fitted to.
    """
    result = torch.empty_like(logits)
    for half in (0, 1):
        order = assigned_order(relation(logits[1 - half :: 2], labels[1 - half :: 2]))
        result[half::2] = in_order(logits[half::2], order)
    return result
