"""Weights of the classes in the loss on labels, whose mean over the training labels is 1.

With that mean the loss keeps its scale beside those of methods, whatever numbers a list holds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.errors import RecipeError
from understudy.functional import EPS


def of_one_class(
    labels: Int[Tensor, " images"], names: Sequence[str], weights: Sequence[float] | None
) -> Float[Tensor, " classes"]:
    """Return the weight of every class where an image has one.

    Balanced: w_c = n / (K n_c) for K classes with n_c of n labelled images, as in scikit-learn. A
    class without an image has weight 1.

    Args:
        labels: Labels of the training images.
        names: Names of the classes.
        weights: Weights of the classes, of any scale; None for balanced ones.

    Raises:
        RecipeError: There are not as many weights as classes, or all that occur are 0.
    """
    counts = torch.bincount(labels[labels != UNLABELLED], minlength=len(names)).double()
    occurs = counts > 0
    chosen = 1 / counts.clamp_min(1) if weights is None else _checked(weights, names)
    mean = (chosen * counts).sum() / counts.sum()
    _refuse_zero(float(mean))
    return torch.where(occurs, chosen / mean, 1.0).float()


def of_presence(
    labels: Int[Tensor, "images classes"], names: Sequence[str], weights: Sequence[float] | None
) -> Float[Tensor, "2 classes"]:
    """Return the weights of absent and of present classes where an image has several.

    Balanced: of the n known labels of a class, p present, a present one weighs n / 2p and an absent
    one n / 2(n − p). A list has the weights of present labels, beside 1 for an absent one, all
    scaled to the mean 1.

    Args:
        labels: Labels of the training images: 1 present, 0 absent, -1 not known.
        names: Names of the classes.
        weights: Weights of present classes; None for balanced ones.

    Raises:
        RecipeError: There are not as many weights as classes.
    """
    counts = torch.stack([(labels == value).sum(0) for value in (0, 1)]).double()
    if weights is None:
        both = (counts > 0).all(0)
        return torch.where(both, counts.sum(0) / (2 * counts.clamp_min(1)), 1.0).float()
    chosen = torch.stack([torch.ones(len(names)).double(), _checked(weights, names)])
    mean = (chosen * counts).sum() / counts.sum()
    return (chosen / mean).float()


def _checked(weights: Sequence[float], names: Sequence[str]) -> Tensor:
    if len(weights) != len(names):
        raise RecipeError(
            f"training.class_weights has {len(weights)} weights, and there are {len(names)} "
            f"classes: give one for each, in the order {', '.join(names[:10])}"
            f"{', …' if len(names) > 10 else ''}."
        )
    return torch.tensor(weights, dtype=torch.float64)


def _refuse_zero(mean: float) -> None:
    if mean < EPS:
        raise RecipeError(
            "training.class_weights gives 0 to every class that the training images have: raise "
            "one, or set task_weight to 0."
        )
