"""Peng et al.: "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802.

    L = 1/(B−1) Σᵢ ⟨δᵢ, δᵢ₊₁⟩,     δᵢ = | A sᵢ + a − (B tᵢ + b) |

s, t are the penultimate features of student and teacher, A, a and B, b the weights and biases of
trained linear layers to 128 dimensions, i = 1 … B−1 all images of the batch but the last. This is
what the code base of CRD (github.com/HobbitLong/RepDistiller) computes under this name, not the
kernel of the paper: products of differences of neighbours in the batch, where the embedding of the
teacher is trained too.

Differences from that code: in evaluation mode the loss is the mean over all pairs of images, which
is its expectation over the random order of a batch; a batch of one image has the loss 0.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method


def cc(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " pairs"]:
    """Compute ⟨δᵢ, δᵢ₊₁⟩ of each image and the next one in the batch."""
    delta = (student - teacher).abs()
    return (delta[:-1] * delta[1:]).sum(1)


def cc_expected(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Average ⟨δᵢ, δⱼ⟩ over all other images j, for each image i."""
    delta = (student - teacher).abs()
    # Σ_{j≠i} ⟨δᵢ, δⱼ⟩ = ⟨δᵢ, Σⱼ δⱼ − δᵢ⟩
    return (delta * (delta.sum(0) - delta)).sum(1) / max(len(delta) - 1, 1)


@final
class CC(Method):
    """Correlation congruence: two images do not differ from the teacher in the same way.

    Published weight: 0.02.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        dim: Dimension of both embeddings.
    """

    published_weight: ClassVar[float] = 0.02

    def __init__(self, student: Shapes, teacher: Shapes, *, dim: Count = 128) -> None:
        super().__init__()
        self.ours = nn.Linear(student.vector("penultimate"), dim)
        self.theirs = nn.Linear(teacher.vector("penultimate"), dim)

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate feature."""
        return ("penultimate",)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = self.ours(student["penultimate"]), self.theirs(teacher["penultimate"])
        return batch_mean(cc(s, t) if self.training else cc_expected(s, t))
