"""Chen, Liu, Zhao, Jia: "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.

    L     = Σₗ hcl( oˡ, tˡ )
    hcl   = Σⱼ 2^{−j} · mean( (poolⱼ(o) − poolⱼ(t))² ) / Σⱼ 2^{−j}
    oˡ    = BN(conv3×3( x̄ˡ )),   x̄ˡ = resize( zˡ₀ ∘ xˡ + zˡ₁ ∘ resize(x̄^{l+1}) )
    xˡ    = BN(conv1×1( sˡ ))

sˡ, tˡ are the stages of student and teacher and, as the deepest level with one position, their
penultimate features; zˡ ∈ (0, 1)² are two maps of attention, a sigmoid of one 1×1 convolution of
both summands (the fusion by attention, ABF). Fusion runs from the deepest level, which has nothing
to be fused with, to the first. hcl, the hierarchical context loss, compares a level as it is
(j = 0) and averaged down to 4, 2 and 1 positions a side, those that are fewer than its height.
Resizing takes the nearest position: a deeper level to the size of sˡ, what is fused to that of tˡ.

As in mdistiller (github.com/megvii-research/mdistiller), the teacher's stages are those before the
last activation, the student's those after it. mdistiller has no such stages of MobileNetV2; here
they are those of the network, which ends them without an activation. On ImageNet, where the
authors' in-place ReLU leaves nothing but activated maps, name the stages.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.errors import RecipeError
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import maps, pairs
from understudy.methods._method import Method
from understudy.methods._projectors import BatchNorm, map_shape


def hcl(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Hierarchical context loss of one level."""
    loss, total, weight = _mean_square(student, teacher), 1.0, 1.0
    # The average of averages is the average, where all have equal shares.
    nested = all(side % 4 == 0 for side in student.shape[2:])
    pooled = full = student, teacher
    for side in (4, 2, 1):
        if side < student.shape[2]:
            weight /= 2
            total += weight
            s, t = (F.adaptive_avg_pool2d(x, side) for x in (pooled if nested else full))
            loss, pooled = loss + weight * _mean_square(s, t), (s, t)
    return loss / total


def _mean_square(x: Tensor, y: Tensor) -> Float[Tensor, " batch"]:
    return F.mse_loss(x, y, reduction="none").flatten(1).mean(1)


@final
class ABF(nn.Module):
    """Attention-based fusion of one level with the deeper ones.

    Args:
        inputs: Channels of the student's level.
        width: Channels in which levels are fused.
        outputs: Channels of the teacher's level.
        fuse: Whether there are deeper levels.
    """

    def __init__(self, inputs: int, width: int, outputs: int, *, fuse: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), BatchNorm(width))
        self.leave = nn.Sequential(
            nn.Conv2d(width, outputs, 3, padding=1, bias=False), BatchNorm(outputs)
        )
        self.attention = nn.Conv2d(2 * width, 2, 1) if fuse else None
        for convolution in (self.enter[0], self.leave[0]):
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(
        self,
        level: Float[Tensor, "batch inputs h w"],
        deeper: Float[Tensor, "batch width h_d w_d"] | None,
        size: Sequence[int],
    ) -> tuple[Float[Tensor, "batch outputs h_t w_t"], Float[Tensor, "batch width h_t w_t"]]:
        """What is compared with the teacher, and what the next level is fused with.

        Args:
            level: A level of the student.
            deeper: What the level below gave second; None at the deepest.
            size: Height and width of the teacher's level.
        """
        x = self.enter(level)
        if self.attention is not None:
            assert deeper is not None
            # Attention to a resized map is the resized attention: both need not be concatenated.
            ours, theirs = self.attention.weight.chunk(2, 1)
            scores = F.conv2d(x, ours, self.attention.bias)
            scores = scores + _resize(F.conv2d(deeper, theirs), x.shape[2:])
            z = scores.sigmoid()
            x = x * z[:, :1] + _resize(deeper, x.shape[2:]) * z[:, 1:]
        x = _resize(x, size)
        return self.leave(x), x


@final
class ReviewKD(Method):
    """Knowledge review: the student's deeper levels, fused with a level, give the teacher's.

    Published weight: 5 with a warm-up of 20 epochs
    (`{value: 5, warmup_epochs: 20, warmup_counts_from: 1}`), beside 1 on the labels; 1 or, for
    MobileNet, 8 on ImageNet. On COCO, beside `nd` as ReviewKD++, 1.2 to 2.2 with the maps
    `[p2, p3, p4, p5, p6]` of Faster R-CNN.

    Args:
        student: Shapes of the student; needs maps and, if it is asked for, `penultimate`.
        teacher: Shapes of the teacher; needs maps and, if it is asked for, `penultimate`.
        stages: Maps to compare; default all 'stage1:stage1/preact' and so on, the student's first,
            matched from the deepest backwards.
        width: Channels in which levels are fused; default those of the student's deepest level, but
            at most 512.
        penultimate: Whether the penultimate feature is the deepest level; not in a detector, where
            it is of places.
    """

    published_weight: ClassVar[float] = 5.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "detection": {
            "weight": 1.4,
            "stages": ("p2", "p3", "p4", "p5", "p6"),
            "penultimate": False,
        }
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        width: int | None = None,
        penultimate: bool = True,
    ) -> None:
        super().__init__()
        if width is not None and width < 1:
            raise RecipeError(f"'width' of reviewkd is {width}; it must be at least 1.")
        self.pairs = pairs(student, teacher, stages, theirs="/preact")
        inputs = [map_shape(student, s)[0] for s, _ in self.pairs]
        outputs = [map_shape(teacher, t)[0] for _, t in self.pairs]
        self.pooled = ("penultimate",) * penultimate
        inputs += [student.vector(name) for name in self.pooled]
        outputs += [teacher.vector(name) for name in self.pooled]
        width = min(512, inputs[-1]) if width is None else width
        self.fusions = nn.ModuleList(
            ABF(ours, width, theirs, fuse=level < len(inputs) - 1)
            for level, (ours, theirs) in enumerate(zip(inputs, outputs, strict=True))
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared maps and, if it is, the penultimate feature."""
        return (*(t for _, t in self.pairs), *self.pooled)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        compared = maps(student, teacher, self.pairs)
        for name in self.pooled:
            s, t = (x[name][:, :, None, None] for x in (student, teacher))
            compared.append((s, t))
        levels, deeper = [], None
        for fuse, (s, t) in zip(reversed(self.fusions), reversed(compared), strict=True):
            out, deeper = fuse(s, deeper, t.shape[2:])
            levels.append(hcl(out, t))
        return batch_mean(torch.stack(levels).sum(0))


def _resize(x: Tensor, size: Sequence[int]) -> Float[Tensor, "batch channels height width"]:
    return x if x.shape[2:] == torch.Size(size) else F.interpolate(x, list(size), mode="nearest")
