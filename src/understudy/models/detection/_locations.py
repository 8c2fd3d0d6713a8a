"""Locations of a dense head's maps: which of them to read, their patches and their classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

BACKGROUND_SHARE = 3
"""Locations of background per location of an object in a balanced mask, as a box head samples."""


def extract_patches(
    maps: Sequence[Float[Tensor, "batch channels _ _"]], kept: Bool[Tensor, "batch locations"]
) -> Float[Tensor, "rows 9*channels"]:
    """Return the 3 x 3 patches around some locations of all levels, with zeros beyond the borders.

    Rows are ordered by image, level, row and column of the map; within each, the channel is the
    outer index, the row and the column of the patch the inner ones, as in the weight of a
    convolution. Patches of other locations are not computed.

    Args:
        maps: One map per level.
        kept: True for the locations to read, in the order of the rows.
    """
    padded = [F.pad(x, (1, 1, 1, 1)) for x in maps]
    pixels = torch.cat([x.flatten(2) for x in padded], 2).transpose(1, 2)
    corner, width = _corners([(x.shape[2], x.shape[3]) for x in padded], pixels.device)
    image, location = kept.nonzero(as_tuple=True)
    first, width = image * pixels.shape[1] + corner[location], width[location]
    table = pixels.flatten(0, 1)
    # Nine gathers without repeated rows, whose gradients a GPU adds up in the same order each time.
    taps = [table.index_select(0, first + y * width + x) for y in range(3) for x in range(3)]
    return torch.stack(taps, 2).flatten(1)


def _corners(
    sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Int[Tensor, " locations"], Int[Tensor, " locations"]]:
    """Return the index of each patch's first pixel in all padded maps, and its map's width."""
    corners, widths, start = [], [], 0
    for height, width in sizes:
        pixels = torch.arange(start, start + height * width, device=device).view(height, width)
        corners.append(pixels[:-2, :-2].flatten())
        widths.append(torch.full_like(corners[-1], width))
        start += height * width
    return torch.cat(corners), torch.cat(widths)


def published_mask(
    matched: Int[Tensor, "batch locations anchors"],
) -> Bool[Tensor, "batch locations"]:
    """Keep all locations but those whose anchors are all between the matcher's thresholds.

    Their anchors overlap an object too little to be matched to it, and too much for background.
    Nearly all locations are kept, nearly all of them background (Wang, Ge, Wu 2022, code for
    detection).

    Args:
        matched: Index of each anchor's object; below 0 as torchvision's `Matcher` defines.
    """
    kept: Tensor = (matched != Matcher.BETWEEN_THRESHOLDS).any(2)
    return kept


def balanced_mask(
    matched: Int[Tensor, "batch locations anchors"], inside: Bool[Tensor, "batch locations"]
) -> Bool[Tensor, "batch locations"]:
    """Keep all locations with an object's anchor, and three random ones of background for each.

    Background are locations `inside` their image none of whose anchors is near an object. They are
    drawn by the generator that PyTorch's dropout draws from, so that the seed of a step fixes them.

    Args:
        matched: Index of each anchor's object; below 0 as torchvision's `Matcher` defines.
        inside: True for the locations inside their image.
    """
    objects = (matched >= 0).any(2)
    background = (matched == Matcher.BELOW_LOW_THRESHOLD).all(2) & inside
    # Other locations get 2, more than any random number, and so the last ranks.
    drawn = torch.rand(background.shape, device=background.device).masked_fill(~background, 2)
    rank = drawn.argsort(1).argsort(1)
    sampled: Tensor = background & (rank < BACKGROUND_SHARE * objects.sum(1, keepdim=True))
    return objects | sampled


def location_classes(
    matched: Int[Tensor, "locations anchors"],
    anchors: Float[Tensor, "locations*anchors 4"],
    boxes: Float[Tensor, "objects 4"],
    labels: Int[Tensor, " objects"],
) -> Int[Tensor, " locations"]:
    """Return the class of the object that overlaps an anchor of each location most.

    0 (background) where no anchor of the location is matched to an object.
    """
    objects = matched.flatten()
    positive = objects >= 0
    overlap = torch.full(objects.shape, -1.0, device=boxes.device, dtype=boxes.dtype)
    ious = box_iou(boxes, anchors[positive])
    overlap[positive] = ious.gather(0, objects[positive].unsqueeze(0))[0]
    classes = torch.zeros_like(objects)
    classes[positive] = labels[objects[positive]]
    best = overlap.view_as(matched).argmax(1, keepdim=True)
    return classes.view_as(matched).gather(1, best)[:, 0]
