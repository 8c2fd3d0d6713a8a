"""What the methods on logits have in common."""

from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import UNLABELLED, Batch
from understudy.features import Features
from understudy.functional import EPS, norm


def standardised(
    logits: Float[Tensor, "rows classes"], eps: float = 1e-7
) -> Float[Tensor, "rows classes"]:
    """Logits of each row less their mean, over their standard deviation plus `eps`.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01528:
    applied to both networks before the temperature, it frees the student from the teacher's range.
    A row without spread becomes zero, without a gradient.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    length = norm(centred).unsqueeze(-1)
    deviation = length / max(logits.shape[-1] - 1, 1) ** 0.5
    return centred.where(length > EPS, 0.0).div(deviation + eps)


def known_classes(teacher: Features, batch: Batch) -> Int[Tensor, " batch"]:
    """The label of each image, or the teacher's prediction where it has none."""
    return batch.labels.where(batch.labels != UNLABELLED, teacher["logits"].argmax(1))
