"""Random weights of large networks, drawn in a fraction of the time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

BLOCK = 65_521
"""Numbers that are drawn; a prime, so that no two rows of a layer are equal."""


def draw_in_blocks(patch: pytest.MonkeyPatch) -> None:
    """Let tensors repeat the first numbers that are drawn for them.

    Values and spread are as before; drawing each number of a VGG takes a second and more.
    """
    for name in ("normal_", "uniform_"):
        patch.setattr(Tensor, name, _repeating(getattr(Tensor, name)))


def _repeating(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def fill(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if tensor.numel() <= BLOCK or not tensor.is_contiguous() or tensor.is_meta:
            return draw(tensor, *arguments, **options)
        with torch.no_grad():
            flat = tensor.detach().view(-1)
            block = draw(flat[:BLOCK], *arguments, **options)
            whole = flat[: len(flat) // BLOCK * BLOCK].view(-1, BLOCK)
            whole[1:] = block
            rest = flat[whole.numel() :]
            rest.copy_(block[: len(rest)])
        return tensor

    return fill
