"""Chen, Liu, Zhao, Jia: "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.

    L     = Σₗ hcl( oˡ, tˡ )
    hcl   = Σⱼ 2^{−j} · mean( (poolⱼ(o) − poolⱼ(t))² ) / Σⱼ 2^{−j}
    oˡ    = BN(conv3×3( x̄ˡ )),   x̄ˡ = resize( zˡ₀ ∘ xˡ + zˡ₁ ∘ resize(x̄^{l+1}) )
    xˡ    = BN(conv1×1( sˡ ))

sˡ, tˡ are the stages of student and teacher and, as the deepest level with a single position, their
penultimate features; zˡ ∈ (0, 1)² are two attention maps, a sigmoid of a 1×1 convolution of both
summands (attention-based fusion, ABF). Fusion runs from the deepest level, which is fused with
nothing, to the first. hcl, the hierarchical context loss, compares a level at full size (j = 0) and
average-pooled to 4, 2 and 1 positions per side, as far as these are fewer than its height. Resizing
is by nearest neighbour: a deeper level to the size of sˡ, the fused level to that of tˡ.

As in mdistiller (github.com/megvii-research/mdistiller), the teacher's stages are pre-activations,
the student's are activated. mdistiller has no such stages of MobileNetV2; here they are the
network's own, which end without an activation. To reproduce the authors' ImageNet results, whose
in-place ReLU leaves only activated maps, set `stages`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import Count
from understudy.features import Features, Shapes
from understudy.functional import batch_mean
from understudy.methods._maps import MapMethod, match_maps
from understudy.methods._projectors import BatchNorm, fold_batch_norm, map_shape


def hcl(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Compute the hierarchical context loss of one level."""
    loss, total, weight = _mean_square(student, teacher), 1.0, 1.0
    # If all pooling windows have equal size, pooling a pooled map equals pooling the full one.
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
    """Attention-based fusion of one level with the fused deeper ones.

    Args:
        inputs: Channels of the student's level.
        width: Channels of the fused levels.
        outputs: Channels of the teacher's level.
        fuse: False for the deepest level, which is fused with nothing.
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
        """Return o, which is compared with the teacher, and x̄, with which the next level is fused.

        Args:
            level: A level of the student.
            deeper: x̄ of the level below; None at the deepest.
            size: Height and width of the teacher's level.
        """
        if self.attention is None:
            x = self.enter(level)
        else:
            assert deeper is not None
            # A 1×1 convolution commutes with nearest-neighbour resizing: convolving the two halves
            # apart, the deeper one at its own size, spares the concatenated map.
            own_weight, deeper_weight = self.attention.weight.chunk(2, 1)
            x, scores = self._enter_and_convolve(level, own_weight)
            below = F.conv2d(deeper, deeper_weight, self.attention.bias)
            z = (scores + _resize(below, x.shape[2:])).sigmoid()
            x = torch.addcmul(x * z[:, :1], _resize(deeper, x.shape[2:]), z[:, 1:])
        x = _resize(x, size)
        return self.leave(x), x

    def _enter_and_convolve(
        self, level: Float[Tensor, "batch inputs h w"], kernel: Float[Tensor, "2 width 1 1"]
    ) -> tuple[Float[Tensor, "batch width h w"], Float[Tensor, "batch 2 h w"]]:
        """Return x, and its convolution with a 1×1 kernel."""
        convolution, norm = self.enter
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, BatchNorm)
        narrow = level.shape[1] < norm.num_features and level[:, 0].numel() > 1
        if not (narrow and self.training):
            x = self.enter(level)
            return x, F.conv2d(x, kernel)
        weight, bias = fold_batch_norm(convolution.weight, norm, level)
        # Both are convolutions of the level, which is smaller than x.
        outer = kernel.flatten(1)
        composed = (outer @ weight.flatten(1))[..., None, None]
        return F.conv2d(level, weight, bias), F.conv2d(level, composed, outer @ bias)


@final
class ReviewKD(MapMethod):
    """Knowledge review: each student level, fused with all deeper ones, matches the teacher's.

    Published weight: 5 with a warm-up of 20 epochs
    (`{value: 5, warmup_epochs: 20, warmup_counts_from: 1}`), with weight 1 on the task loss; on
    ImageNet 1, or 8 for MobileNet. On COCO, with `nd` as ReviewKD++, 1.2 to 2.2 with the maps
    `[p2, p3, p4, p5, p6]` of Faster R-CNN.

    Args:
        student: Shapes of the student; needs maps, and `penultimate` unless that is False.
        teacher: Shapes of the teacher; needs maps, and `penultimate` unless that is False.
        stages: Maps to compare; default: all 'stage1:stage1/preact' and so on, the student's first,
            matched from the deepest backwards. A teacher without 'stage1/preact', whose stages end
            in no activation that is a module, is compared at its stages: 'stage1:stage1'.
        width: Channels of the fused levels; default: those of the student's deepest level, but at
            most 512.
        penultimate: Whether the penultimate feature is the deepest level; False for a detector,
            where it belongs to locations and not to whole images.
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
        width: Count | None = None,
        penultimate: bool = True,
    ) -> None:
        super().__init__(student, teacher)
        self.pairs = match_maps(
            student, teacher, stages, teacher_suffix="/preact", or_activated=True
        )
        inputs = [map_shape(student, s)[0] for s, _ in self.pairs]
        outputs = [map_shape(teacher, t)[0] for _, t in self.pairs]
        self.pooled = ("penultimate",) if penultimate else ()
        inputs += [student.vector(name) for name in self.pooled]
        outputs += [teacher.vector(name) for name in self.pooled]
        width = min(512, inputs[-1]) if width is None else width
        self.fusions = nn.ModuleList(
            ABF(student_channels, width, teacher_channels, fuse=level < len(inputs) - 1)
            for level, (student_channels, teacher_channels) in enumerate(
                zip(inputs, outputs, strict=True)
            )
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the compared maps and, if set, the penultimate."""
        return (*super().reads, *self.pooled)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        compared = self.paired_maps(student, teacher)
        for name in self.pooled:
            # A vector is a map of one position.
            s, t = (x[name][:, :, None, None] for x in (student, teacher))
            compared.append((s, t))
        levels, deeper = [], None
        for fuse, (s, t) in zip(reversed(self.fusions), reversed(compared), strict=True):
            o, deeper = fuse(s, deeper, t.shape[2:])
            levels.append(hcl(o, t))
        return batch_mean(torch.stack(levels).sum(0))


def _resize(x: Tensor, size: Sequence[int]) -> Float[Tensor, "batch channels height width"]:
    return x if x.shape[2:] == torch.Size(size) else F.interpolate(x, list(size), mode="nearest")
