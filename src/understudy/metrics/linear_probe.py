"""Linear probe: how well a linear classifier on frozen features tells the classes.

Multinomial logistic regression on features at mean 0 and deviation 1 of each dimension, with a
penalty on the weights, to convergence by L-BFGS. It has no learning rate, and no random numbers.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

PENALTY = 1e-3
"""Weight of half the squared norm of the weights, beside the mean cross-entropy."""

FOLDS = 5
"""Parts of a single set of images, each classified by a probe on the others."""

_STEPS = 60


class Probe(NamedTuple):
    """A linear classifier of features."""

    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]
    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, " classes"]

    def scores(self, features: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows classes"]:
        """Compute the score of each class."""
        return F.linear((features.float() - self.mean) / self.std, self.weight, self.bias)


def fit(features: Float[Tensor, "rows dim"], labels: Int[Tensor, " rows"], classes: int) -> Probe:
    """Fit a probe on features and their classes; a dimension that never changes is left out."""
    x = features.float()
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6, std, torch.inf)
    x = (x - mean) / std
    with torch.enable_grad():
        weight, bias = (
            torch.zeros(size, device=x.device, requires_grad=True)
            for size in ((classes, x.shape[1]), (classes,))
        )
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-7
        )

        def loss() -> float:
            solver.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), labels)
            value = value + PENALTY / 2 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return float(value.detach())

        solver.step(loss)  # type: ignore[no-untyped-call]
    return Probe(mean, std, weight.detach(), bias.detach())


def predicted_by_folds(
    features: Float[Tensor, "rows dim"], labels: Int[Tensor, " rows"], classes: int
) -> Int[Tensor, " rows"]:
    """Predict the class of each row by a probe on the other folds; row i is in fold i modulo 5."""
    fold = torch.arange(len(features)) % FOLDS
    predicted = torch.empty_like(labels)
    for number in range(FOLDS):
        own = fold == number
        probe = fit(features[~own], labels[~own], classes)
        predicted[own] = probe.scores(features[own]).argmax(1)
    return predicted
