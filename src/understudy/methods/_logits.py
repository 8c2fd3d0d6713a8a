"""Logit standardisation, and labels filled in by the teacher's predictions."""

from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.features import Features
from understudy.functional import EPS, norm


def standardised(
    logits: Float[Tensor, "rows classes"], eps: float = 1e-7
) -> Float[Tensor, "rows classes"]:
    """Subtract the mean of each row and divide by its standard deviation plus `eps`.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01528:
    applied to both networks before the temperature, so that the student need not match the range
    of the teacher's logits. A row of equal logits becomes zero, with gradient zero.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    length = norm(centred).unsqueeze(-1)
    # The unbiased standard deviation, from a norm whose gradient is finite at zero.
    deviation = length / max(logits.shape[-1] - 1, 1) ** 0.5
    return centred.where(length > EPS, 0.0).div(deviation + eps)


def labels_or_predictions(
    labels: Int[Tensor, " batch"], teacher: Features
) -> Int[Tensor, " batch"]:
    """Replace unknown labels by the teacher's predicted classes."""
    return labels.where(labels != UNLABELLED, teacher["logits"].argmax(1))
