"""Faster copy of a detector whose weights do not change: what depends on them alone is precomputed.

Its outputs equal those of the detector in the same precision, up to rounding: batch norms are
folded into the convolutions before them, weights are kept in the precision they are used in, and
boxes are pooled by one look-up. In bfloat16 on a CPU this saves a quarter of the pass through
ResNet-101 and its pyramid, where torchvision's frozen norms compute in fp32, and makes pooling 20
times as fast.
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from understudy.models.detection._roi_align import TableRoIAlign

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def frozen_copy(module: ModuleT, precision: torch.dtype | None) -> ModuleT:
    """Return a faster copy of a detector, or of a module that holds one.

    Args:
        module: In evaluation mode; not changed.
        precision: Data type of the autocast under which the copy is called; None without autocast.
    """
    copy = deepcopy(module).requires_grad_(False)
    for submodule in list(copy.modules()):
        _fold_norms(submodule)
        _replace_pooling(submodule)
    for submodule in copy.modules():
        if precision is not None and isinstance(submodule, nn.Conv2d | nn.Linear):
            submodule.to(precision)
    return copy


def _fold_norms(module: nn.Module) -> None:
    """Fold the batch norms among a module's children into the convolutions before them."""
    for first, second in _successive(module):
        conv, norm = getattr(module, first, None), getattr(module, second, None)
        foldable = isinstance(norm, FrozenBatchNorm2d) or (
            isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.affine
        )
        if foldable and isinstance(conv, nn.Conv2d):
            setattr(module, first, fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type]
            setattr(module, second, nn.Identity())


def _successive(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield pairs of children of which only the second reads the output of the first."""
    if isinstance(module, BasicBlock | Bottleneck):
        yield from ((f"conv{i}", f"bn{i}") for i in (1, 2, 3))
    elif isinstance(module, nn.Sequential | IntermediateLayerGetter):
        # What a getter returns of a child is read by others too.
        returned = getattr(module, "return_layers", {})
        names = [name for name, _ in module.named_children()]
        yield from ((first, second) for first, second in pairwise(names) if first not in returned)


def _replace_pooling(heads: nn.Module) -> None:
    """Let a detector's heads pool boxes by table, and its box head read that memory order."""
    pool = getattr(heads, "box_roi_pool", None)
    if not isinstance(pool, MultiScaleRoIAlign) or pool.sampling_ratio <= 0:
        return  # Without a ratio the number of points per bin differs from box to box.
    heads.box_roi_pool = TableRoIAlign(pool)
    if isinstance(heads.box_head, TwoMLPHead):
        heads.box_head = _ChannelsLastHead(heads.box_head, pool.output_size)


@final
class _ChannelsLastHead(nn.Module):
    """Box head of two layers for pooled boxes that have their channels last in memory."""

    def __init__(self, head: TwoMLPHead, bins: tuple[int, int]) -> None:
        super().__init__()
        weight = head.fc6.weight.unflatten(1, (-1, *bins)).permute(0, 2, 3, 1).flatten(1)
        head.fc6.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.head = head

    def forward(self, pooled: Float[Tensor, "boxes channels bins bins"]) -> Tensor:
        # The permuted tensor is contiguous, so that the head flattens it without a copy.
        features: Tensor = self.head(pooled.permute(0, 2, 3, 1))
        return features
