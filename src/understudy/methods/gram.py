"""Siméoni et al.: "DINOv3", 2025, arXiv 2508.10104.

    L = 1/(B·N²) Σᵢ ‖ aᵢ aᵢᵀ − eᵢ eᵢᵀ ‖²_F

The Gram loss: a, e ∈ R^{B×N×D} are the N patches of student and teacher at length 1, so that the
matrices hold the cosines of all pairs of patches of an image. The widths may differ: there is no
projector. The student's map is resized bilinearly to the teacher's grid. With `pairs="batch"`, all
B·N patches of the batch are compared with each other, 1/(B·N)² in front. B is the batch size.
Nothing of it needs labels. Scaled by weights of its own, the loss is a plain alternative to the
affinities of `queue_kl`.

Negative cosines may be set to 0: of `both`, each where its own is negative; or, of the `teacher`,
and of the student where both are negative. The code of the latter sets the teacher's to 0 first and
then asks which of them are negative, so that the student's are never changed:
`negatives="teacher_published"`.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.functional import batch_mean, unit
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._tokens import patch_maps, tokens

Negatives = Literal["kept", "both", "teacher", "teacher_published"]
Pairs = Literal["image", "batch"]


def gram(
    student: Float[Tensor, "batch tokens dim_s"],
    teacher: Float[Tensor, "batch tokens dim_t"],
    negatives: Negatives = "kept",
    pairs: Pairs = "image",
) -> Float[Tensor, " batch"]:
    """Compute the squared difference of both matrices of cosines, averaged over an image's rows."""
    a, e = unit(student), unit(teacher)
    if pairs == "image":
        ours, theirs = a @ a.mT, e @ e.mT
    else:
        ours, theirs = (x @ x.flatten(0, 1).T for x in (a, e))
    if negatives == "both":
        ours, theirs = ours.clamp_min(0), theirs.clamp_min(0)
    elif negatives == "teacher":
        ours = torch.where((ours < 0) & (theirs < 0), 0, ours)
        theirs = theirs.clamp_min(0)
    elif negatives == "teacher_published":
        theirs = theirs.clamp_min(0)
    return (ours - theirs).square().mean((1, 2))


@final
class Gram(Method):
    """Gram loss: cosines between the patches of an image match the teacher's.

    Published weight: 2, beside the losses of DINOv3, as `negatives: kept` and `pairs: image`.

    Args:
        student: Shapes of the student; needs a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        negatives: What becomes of negative cosines.
        pairs: Compare the patches of each image, or of the whole batch; with several processes, of
            the images of one.
        patches: Maps to compare, such as `stage4:patches`, the student's first; default: `patches`
            of a network that names it, else its last stage.
    """

    published_weight: ClassVar[float] = 2.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        negatives: Negatives = "kept",
        pairs: Pairs = "image",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.negatives, self.pairs = negatives, pairs
        self.patches = patch_maps(student, teacher, patches)

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the patches."""
        return (self.patches[1],)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        e = self.teacher_as_map(teacher, self.patches[1])
        a = resize(self.student_as_map(student, self.patches[0]), e.shape[2:])
        return batch_mean(gram(tokens(a), tokens(e), self.negatives, self.pairs))
