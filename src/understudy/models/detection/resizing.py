"""How a detector resizes and pads an image: to which sides, and whether always to the same."""

from math import ceil
from typing import final

import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform


@final
class Resizing:
    """Sides of an image that a detector gets alone, after it has resized and padded it.

    Args:
        transform: The detector's own.
    """

    def __init__(self, transform: GeneralizedRCNNTransform) -> None:
        self._transform = transform
        self._canvases: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def drawn(self) -> bool:
        """True if the detector draws the side of its images at random, in every step."""
        return self._transform.fixed_size is None and len(self._transform.min_size) > 1

    def __str__(self) -> str:
        transform = self._transform
        if transform.fixed_size is not None:
            width, height = transform.fixed_size
            return f"resized to {height} × {width}"
        return (
            f"shorter side resized to {transform.min_size[-1]}, longer side at most "
            f"{transform.max_size}, padded to multiples of {transform.size_divisible}"
        )

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides of an image of this height and width, resized and padded."""
        if (height, width) not in self._canvases:
            self._canvases[height, width] = self._of(height, width)
        return self._canvases[height, width]

    def _of(self, height: int, width: int) -> tuple[int, int]:
        transform = self._transform
        training, transform.training = transform.training, False
        try:
            # By torchvision itself, which rounds in its own way; nothing is computed on "meta".
            resized, _ = transform.resize(torch.empty(3, height, width, device="meta"))
        finally:
            transform.training = training
        step = transform.size_divisible
        rows, columns = (ceil(side / step) * step for side in resized.shape[1:])
        return rows, columns
