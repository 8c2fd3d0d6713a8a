"""Linear probe of a feature in closed form, and whether a classifier was ever trained."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.models.base import Wrapped

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths of the ridge, as multiples of the mean squared length of a feature."""

_EDGE = 1.1
"""Largest singular value of a random matrix, as a multiple of its limit; of a trained one more."""


def probe(
    features: Float[Tensor, "images dim"], labels: Int[Tensor, "images ..."], classes: int
) -> Float[Tensor, "images classes"]:
    """Return the logits of a linear classifier for each image, fitted to all other images.

    Ridge regression on standardised features, each image left out in turn by its closed form; the
    ridge is the one of the smallest error.

    Args:
        features: One row for each image.
        labels: Their classes, or rows of 1 and 0 for several classes.
        classes: Number of classes.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
    # The images may be fewer than the dimensions: an image's row of products is enough.
    products = x @ x.T / x.shape[1] + 1.0  # 1: the bias
    y = F.one_hot(labels, classes) if labels.ndim == 1 else labels == 1
    y = 2.0 * y.double() - 1
    best, smallest = torch.zeros_like(y), torch.inf
    for ridge in _RIDGES:
        inverse = torch.linalg.inv(products + ridge * torch.eye(len(x), dtype=x.dtype))
        left_out = inverse @ y / inverse.diagonal().unsqueeze(1)
        error = float(left_out.square().mean())
        if error < smallest:
            best, smallest = y - left_out, error
    return best.float()


def looks_initialised(network: Wrapped) -> bool:
    """Return True if the classifier's weights are like those that no training has changed.

    Random rows have no direction in common, so that the largest singular value is that of a random
    matrix, σ (√rows + √columns); what training adds to all rows exceeds it. Biases are then 0, or
    of the range of the weights.
    """
    weight, bias = network.classifier_weight, network.classifier_bias
    if weight is None or min(weight.shape) < 2:
        return False
    weight = weight.detach().double().cpu()
    rows, columns = weight.shape
    limit = float(weight.std()) * (rows**0.5 + columns**0.5)
    largest = float(torch.linalg.matrix_norm(weight, 2))
    if bias is not None and float(bias.detach().abs().max()) > float(weight.abs().max()):
        return False
    return bool(largest <= _EDGE * limit)
