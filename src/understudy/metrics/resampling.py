"""Average precision on resampled test sets: how far it varies with the choice of test images.

Each resample draws as many images as there are, with replacement (Efron & Tibshirani, "An
Introduction to the Bootstrap", 1993). Resample r is the same for every network that is measured on
as many images, so that networks can be compared on it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.functional import seeded

RESAMPLES = 200
"""Resampled test sets; a standard error from them is known to 5 %."""


def image_counts(images: int) -> Int[Tensor, "resamples images"]:
    """Return how often each image occurs in each resample, a function of their number alone."""
    with seeded(images):
        drawn = torch.randint(images, (RESAMPLES, images))
    return torch.zeros(RESAMPLES, images, dtype=torch.int64).scatter_add_(
        1, drawn, torch.ones_like(drawn)
    )


def average_precision(
    hits: Bool[Tensor, " ranks"],
    image: Int[Tensor, " ranks"],
    positives: Int[Tensor, " images"],
    counts: Int[Tensor, "resamples images"],
) -> Float[Tensor, " resamples"]:
    """Compute the average precision of one class on each resample, over all points as in VOC.

    Args:
        hits: True for true positives, in the order of their scores, highest first.
        image: Image of each rank, as a column of `counts`.
        positives: Positives in each image.
        counts: What `image_counts` returns.

    Returns:
        Values in [0, 1]; NaN for a resample without a positive.
    """
    weight = counts[:, image].double()
    true = (weight * hits).cumsum(1)
    precision = true / weight.cumsum(1).clamp_min(1)
    envelope = precision.flip(1).cummax(1).values.flip(1)
    total = (counts * positives).sum(1).double()
    return torch.where(total > 0, (weight * hits * envelope).sum(1) / total, torch.nan)


def mean_over_classes(classes: list[Float[Tensor, " resamples"]]) -> list[float]:
    """Return the mean average precision of each resample in percent, of the classes that occur."""
    values = torch.stack(classes)
    # A resample of few images may lack every positive of a class, or, rarely, of all classes.
    return torch.nan_to_num(100 * values.nanmean(0)).tolist()
