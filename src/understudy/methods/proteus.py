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

In each step half of the images, drawn anew, lose half of their patches. The authors replace the
embeddings of these by one learned vector. Here their pixels become one grey, whose embedding is
such a vector too, so that any transformer can be a student; a convolutional one has no patches to
mask.
"""

import logging
from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import NonNegative
from understudy.errors import ShapeError
from understudy.features import SECOND, ChangedImages, Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._projectors import map_shape, resize
from understudy.methods._tokens import (
    check_same_images,
    patch_maps,
    per_position,
    summaries,
    tokens,
)

LOGGER = logging.getLogger("understudy")

_MASK = "mask"
"""Name of the positions that are masked, a row of the grid for each image."""
_GREY = (0.485, 0.456, 0.406)
"""Values of masked pixels: the mean of ImageNet."""


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
    """Heads on the student predict a foundation model's summary, patches, and masked patches.

    Published weight: 1, alone; AdamW, lr 5e-4 · batch / 512, 300 epochs. A teacher that was
    contrasted with text, such as CLIP, is compared by its summary alone: `feature_weight: 0` and
    `patch_weight: 0`.

    Args:
        student: Shapes of the student; needs the vector `penultimate` (or `cls`) and, unless
            `feature_weight` is 0, a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        token_weight: λ_tok.
        feature_weight: λ_fea.
        patch_weight: λ_pat; above 0 the student, a transformer with as many patches as the teacher,
            computes each batch twice. Default: 1 for such a pair, else 0.
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
        patch_weight: NonNegative | None = None,
        summary: str = "",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.token_weight, self.feature_weight = token_weight, feature_weight
        self.summary = summaries(student, teacher, summary)
        self.token_head = normed_head(*_widths(student, teacher, self.summary))
        self.patches: tuple[str, str] | None = None
        if feature_weight or patch_weight:
            self.patches = patch_maps(student, teacher, patches)
        if feature_weight and self.patches:
            _check_widths(teacher, self.summary[1], self.patches[1])
            self.feature_head = normed_head(*_widths(student, teacher, self.patches))
        self.patch_weight = _patch_weight(student, teacher, self.patches, patch_weight)
        if self.patches and self.patch_weight:
            self.patch_head = normed_head(*_widths(student, teacher, self.patches))
            self._grid = map_shape(student, self.patches[0])[1:]

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the summary and, for L_fea, the patches."""
        return (self.summary[1], *([self.patches[1]] if self.patches else []))

    def projected(self, student: Features) -> Features:
        """Return the outputs of the heads."""
        result = {self.summary[1]: self.token_head(student[self.summary[0]])}
        if self.patches and self.feature_weight:
            patches = self.student_as_map(student, self.patches[0])
            result[self.patches[1]] = per_position(self.feature_head, patches)
        return result

    def second_images(self, batch: Batch) -> ChangedImages | None:
        """Return the images of which some patches are masked, and the positions of these."""
        if not self.patch_weight:
            return None
        masked = drawn_mask(len(batch), self._grid, batch.images.device)
        height, width = batch.images.shape[2:]
        mask = masked.float().unsqueeze(1)
        mask = F.interpolate(mask, (height, width), mode="nearest").to(batch.images.dtype)
        grey = batch.images.new_tensor(_GREY[: batch.images.shape[1]]).view(1, -1, 1, 1)
        return ChangedImages(torch.lerp(batch.images, grey, mask), {_MASK: masked})

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = self.token_head(student[self.summary[0]]), teacher[self.summary[1]]
        rows = self.token_weight * token(s, t)
        if self.patches and self.feature_weight:
            q = self.teacher_as_map(teacher, self.patches[1])
            check_same_images("proteus", s, q, "set feature_weight to 0")
            p = resize(self.student_as_map(student, self.patches[0]), q.shape[2:])
            p = self.feature_head(tokens(p))
            rows = rows + self.feature_weight * feature((s, t), (p, tokens(q)))
        if not self.patch_weight:
            return batch_mean(rows)
        return batch_mean(rows) + self.patch_weight * self._masked(student, teacher)

    def _masked(self, student: Features, teacher: Features) -> Float[Tensor, ""]:
        """Return L_pat of the second pass."""
        assert self.patches is not None
        name = self.patches[0]
        if f"{SECOND}/{name}" not in student:
            raise ShapeError(
                "proteus compares masked patches of a second pass of the student, as a distiller "
                "computes them by `second_images`: give these features, or set patch_weight to 0."
            )
        second = {name: student[f"{SECOND}/{name}"]}
        p = self.patch_head(tokens(self.student_as_map(second, name)))
        q = tokens(self.teacher_as_map(teacher, self.patches[1]))
        # Their number is known: `nonzero` would let a GPU wait for it, and break a CUDA graph.
        count = _half(len(p)) * _half(prod(self._grid))
        mask = student[f"{SECOND}/{_MASK}"].flatten()
        return patch(p, q, mask.float().argsort(descending=True)[:count])


def drawn_mask(
    images: int, grid: tuple[int, ...], device: torch.device
) -> Bool[Tensor, "images height width"]:
    """Draw which patches are masked: half of those of half of the images, at least one."""
    count = prod(grid)
    order = torch.rand(images, count, device=device).argsort(1).argsort(1)
    chosen = torch.rand(images, device=device).argsort().argsort() < _half(images)
    masked = (order < _half(count)) & chosen.unsqueeze(1)
    return masked.view(images, *grid)


def _half(number: int) -> int:
    return max(number // 2, 1)


def _patch_weight(
    student: Shapes, teacher: Shapes, names: tuple[str, str] | None, weight: float | None
) -> float:
    """Return λ_pat, by default 1 where patches can be masked.

    Raises:
        ShapeError: A weight above 0 is asked for, and none can be masked.
    """
    if names is None or weight == 0:
        return 0.0
    cause = _not_masked(student, teacher, names)
    if not cause:
        return 1.0 if weight is None else weight
    if weight:
        raise ShapeError(f"proteus cannot mask patches: {cause}. Set patch_weight to 0.")
    LOGGER.info(f"proteus trains without masked patches: {cause}.")
    return 0.0


def _not_masked(student: Shapes, teacher: Shapes, names: tuple[str, str]) -> str:
    """Return why no patches of these networks can be masked; empty if they can."""
    if names[0] not in student.grids:
        return f"{names[0]!r} of {student.owner} is no grid of tokens, each of a patch of its own"
    ours, theirs = map_shape(student, names[0])[1:], map_shape(teacher, names[1])[1:]
    if ours == theirs:
        return ""
    sizes = [" × ".join(map(str, size)) for size in (ours, theirs)]
    return f"{student.owner} has {sizes[0]} patches and {teacher.owner} {sizes[1]}"


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
