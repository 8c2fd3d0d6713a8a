"""Zhang et al.: "Accessing Vision Foundation Models via ImageNet-1K", ICLR 2025, arXiv 2407.10366.

    L     = λ_tok L_tok + λ_fea L_fea + λ_pat L_pat
    L_tok = mse( h_tok(s), t )
    L_fea = mse( [ h_tok(s) ; h_fea(p) ], [ t ; q ] )
    L_pat = mse( h_pat(p̃)_M, q_M )

Proteus. s, t are the summaries (class tokens) of student and teacher, p, q their N patches, h heads
of LayerNorm and a linear layer, and mse the mean over all entries. p̃ are the student's patches of
an image of which the patches M were masked, in a second pass. The output of h_tok serves two terms.
The student's map is resized bilinearly to the teacher's grid, before its head; the code needs equal
grids. Nothing of it needs labels.

The method trains the first two terms. The third needs a second pass of the student over masked
images, and a method here sees the one pass of a step, in which a convolutional student could not
mask patches anyway: it is in the functions alone.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import NonNegative
from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._tokens import (
    check_same_images,
    patch_maps,
    per_position,
    summaries,
    tokens,
)


def token(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Compute L_tok of each image; the student's summary is behind its head."""
    return (student - teacher).square().mean(1)


def feature(
    summaries: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]],
    patches: tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch tokens dim"]],
) -> Float[Tensor, " batch"]:
    """Compute L_fea of each image, from pairs of student (behind heads) and teacher."""
    s, t = (torch.cat([x.unsqueeze(1), y], 1) for x, y in zip(summaries, patches, strict=True))
    return (s - t).square().mean((1, 2))


def patch(
    student: Float[Tensor, "batch tokens dim"],
    teacher: Float[Tensor, "batch tokens dim"],
    masked: Int[Tensor, " masked"],
) -> Float[Tensor, ""]:
    """Compute L_pat; `masked` counts through the tokens of all images."""
    rows = (student.flatten(0, 1)[masked] - teacher.flatten(0, 1)[masked]).square().mean(1)
    return batch_mean(rows)


def normed_head(inputs: int, outputs: int) -> nn.Sequential:
    """Build h: LayerNorm and a linear layer."""
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs))


@final
class Proteus(Method):
    """Heads on the student predict a foundation model's summary, alone and beside its patches.

    Published weight: 1, alone; AdamW, lr 5e-4 · batch / 512, 300 epochs. A teacher that was
    contrasted with text, such as CLIP, is compared by its summary alone: `feature_weight: 0`.

    Args:
        student: Shapes of the student; needs the vector `penultimate` (or `cls`) and, unless
            `feature_weight` is 0, a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        token_weight: λ_tok.
        feature_weight: λ_fea.
        summary: Vectors to compare, such as `penultimate:cls`, the student's first; default:
            `penultimate` of the student, and of a teacher without `cls`.
        patches: Maps to compare, such as `stage4:patches`; default: `patches` of a network that
            names it, else its last stage.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"detection": {"feature_weight": 0.0}}

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        token_weight: NonNegative = 1.0,
        feature_weight: NonNegative = 1.0,
        summary: str = "",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.token_weight, self.feature_weight = token_weight, feature_weight
        self.summary = summaries(student, teacher, summary)
        self.token_head = normed_head(*_widths(student, teacher, self.summary))
        self.patches: tuple[str, str] | None = None
        if feature_weight:
            self.patches = patch_maps(student, teacher, patches)
            _check_widths(teacher, self.summary[1], self.patches[1])
            self.feature_head = normed_head(*_widths(student, teacher, self.patches))

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the summary and, for L_fea, the patches."""
        return (self.summary[1], *([self.patches[1]] if self.patches else []))

    def projected(self, student: Features) -> Features:
        """Return the outputs of the heads."""
        result = {self.summary[1]: self.token_head(student[self.summary[0]])}
        if self.patches:
            patches = self.student_as_map(student, self.patches[0])
            result[self.patches[1]] = per_position(self.feature_head, patches)
        return result

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = self.token_head(student[self.summary[0]]), teacher[self.summary[1]]
        rows = self.token_weight * token(s, t)
        if self.patches:
            q = self.teacher_as_map(teacher, self.patches[1])
            check_same_images("proteus", s, q, "set feature_weight to 0")
            p = resize(self.student_as_map(student, self.patches[0]), q.shape[2:])
            p = self.feature_head(tokens(p))
            rows = rows + self.feature_weight * feature((s, t), (p, tokens(q)))
        return batch_mean(rows)


def _check_widths(teacher: Shapes, summary: str, patches: str) -> None:
    """Refuse a teacher whose summary is no row beside its patches.

    Raises:
        ShapeError: As above.
    """
    widths = teacher.width(summary), teacher.width(patches)
    if widths[0] != widths[1]:
        raise ShapeError(
            f"proteus compares the summary and the patches of the teacher as rows of one matrix, "
            f"but {summary!r} of {teacher.owner} has {widths[0]} values and {patches!r} has "
            f"{widths[1]} channels: name others by summary and patches, or set feature_weight to 0."
        )


def _widths(student: Shapes, teacher: Shapes, names: tuple[str, str]) -> tuple[int, int]:
    return student.width(names[0]), teacher.width(names[1])
