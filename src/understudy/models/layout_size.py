"""Chooses the size of the images that show the layout of a network's maps: squares if possible.

In a map of square images two equal sides tell where its channels are: (batch, 7, 7, 64) has them
last. Of other images they are first or last with sides that differ, which no shape tells for sure.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from understudy.errors import NetworkError
from understudy.models.taps import dry_run, eval_mode, first_tensor
from understudy.models.token_grids import has_prefix_tokens


def layout_size(module: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return a square as high or wide as the images, if the module takes one; else their size.

    Of a transformer it is their size, which gives the proportions of its grid of patches.

    Args:
        module: Takes normalised images.
        channels: Number of their channels.
        size: Their height and width.

    Raises:
        NetworkError: It does not take such images; or no such square, and returns maps with their
            channels last.
    """
    height, width = size
    if height == width or has_prefix_tokens(module):
        return size
    shapes = _shapes(module, channels, size)
    if _is_transformer(shapes):
        return size
    side = max(size)
    try:
        _shapes(module, channels, (side, side))
    except NetworkError:
        _check_channels_first(module, shapes, size)
        return size
    return side, side


def _shapes(module: nn.Module, channels: int, size: tuple[int, int]) -> list[torch.Size]:
    """Return the shapes that modules return for two images, in a dry pass."""
    shapes: list[torch.Size] = []

    def note(module: nn.Module, args: object, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.ndim > 1 and len(tensor) == 2:
            shapes.append(tensor.shape)

    images = torch.zeros(2, channels, *size).to(next(module.parameters(), torch.empty(0)))
    handles = [part.register_forward_hook(note) for part in module.modules()]
    try:
        with eval_mode(module):
            dry_run(module, images)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _is_transformer(shapes: Sequence[torch.Size]) -> bool:
    """Return True if most modules return tokens, as many each time but for class tokens."""
    tokens, maps = ([shape for shape in shapes if len(shape) == axes] for axes in (3, 4))
    return len(tokens) > len(maps) and len({shape[1] for shape in tokens}) <= 2


def _check_channels_first(
    module: nn.Module, shapes: Iterable[torch.Size], size: tuple[int, int]
) -> None:
    """Refuse a network one of whose maps has the proportions of the images before its channels."""
    for _, rows, columns, last in (shape for shape in shapes if len(shape) == 4):
        if _fits(rows, columns, size) and not _fits(columns, last, size):
            raise NetworkError(
                f"{type(module).__name__} returns maps of shape ({rows}, {columns}, {last}), with "
                f"their channels last, and takes no square images, of which alone their layout is "
                "certain: set its size to one number, the side of a square."
            )


def _fits(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Return True if a map has the proportions of the images, up to one row or column."""
    height, width = size
    return abs(rows * width - columns * height) <= max(size)
