"""Locations of the maps of a dense head: which of them to read, and what is read there."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

BACKGROUND_SHARE = 3
"""Locations of background for each of an object in a balanced mask, as a box head samples them."""


def patches(
    maps: Sequence[Float[Tensor, "batch channels _ _"]], kept: Bool[Tensor, "batch locations"]
) -> Float[Tensor, "rows 9*channels"]:
    """The 3 x 3 patches around some locations of all levels, with zeros beyond the borders.

    Rows go image by image, level by level and row by row; within each, the channel is the outer
    index, the row and the column of the patch the inner ones, as in the weight of a convolution.
    Nothing is unfolded that is not kept.

    Args:
        maps: One for each level.
        kept: Of each location, in the order of the rows.
    """
    padded = [F.pad(each, (1, 1, 1, 1)) for each in maps]
    line = torch.cat([each.flatten(2) for each in padded], 2).transpose(1, 2)
    corner, width = _corners([(each.shape[2], each.shape[3]) for each in padded], line.device)
    image, location = kept.nonzero(as_tuple=True)
    first, width = image * line.shape[1] + corner[location], width[location]
    flat = line.flatten(0, 1)
    # Nine gathers without repeated rows, whose gradients a GPU adds up in the same order each time.
    read = [flat.index_select(0, first + y * width + x) for y in range(3) for x in range(3)]
    return torch.stack(read, 2).flatten(1)


def _corners(
    sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Int[Tensor, " locations"], Int[Tensor, " locations"]]:
    """Where each patch begins in a line of all padded maps, and the width of its map."""
    corners, widths, before = [], [], 0
    for height, width in sizes:
        inner = torch.arange(before, before + height * width, device=device).view(height, width)
        corners.append(inner[:-2, :-2].flatten())
        widths.append(torch.full_like(corners[-1], width))
        before += height * width
    return torch.cat(corners), torch.cat(widths)


def published(matched: Int[Tensor, "batch locations anchors"]) -> Bool[Tensor, "batch locations"]:
    """All locations but those whose anchors all overlap an object neither enough nor too little.

    Nearly everything, and nearly all of it background (Wang, Ge, Wu 2022, code for detection).

    Args:
        matched: Number of each anchor's object; below 0 as torchvision's `Matcher` says.
    """
    kept: Tensor = (matched != Matcher.BETWEEN_THRESHOLDS).any(2)
    return kept


def balanced(
    matched: Int[Tensor, "batch locations anchors"], inside: Bool[Tensor, "batch locations"]
) -> Bool[Tensor, "batch locations"]:
    """All locations with an object's anchor, and three of background for each, drawn at random.

    Background are locations `inside` their image none of whose anchors is near an object. They are
    drawn by the generator that PyTorch's dropout draws from, so that the seed of a step fixes them.
    """
    objects = (matched >= 0).any(2)
    background = (matched == Matcher.BELOW_LOW_THRESHOLD).all(2) & inside
    drawn = torch.rand(background.shape, device=background.device).masked_fill(~background, 2)
    rank = drawn.argsort(1).argsort(1)
    few: Tensor = background & (rank < BACKGROUND_SHARE * objects.sum(1, keepdim=True))
    return objects | few


def classes(
    matched: Int[Tensor, "locations anchors"],
    anchors: Float[Tensor, "locations*anchors 4"],
    boxes: Float[Tensor, "objects 4"],
    labels: Int[Tensor, " objects"],
) -> Int[Tensor, " locations"]:
    """Class of the object that an anchor of a location overlaps most; 0 where none has one."""
    objects = matched.flatten()
    found = objects >= 0
    overlap = torch.full(objects.shape, -1.0, device=boxes.device, dtype=boxes.dtype)
    overlap[found] = box_iou(boxes, anchors[found]).gather(0, objects[found].unsqueeze(0))[0]
    seen = torch.zeros_like(objects)
    seen[found] = labels[objects[found]]
    best = overlap.view_as(matched).argmax(1, keepdim=True)
    return seen.view_as(matched).gather(1, best)[:, 0]
