"""File of features of every location of every training image."""

from pathlib import Path
from typing import BinaryIO, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.errors import ShapeError


@final
class FeatureFile:
    """Maps of many images in half precision, image after image, location after location.

    Args:
        path: The file.
        locations: Number of locations of each map.
        dim: Channels of each map.
    """

    def __init__(self, path: Path, locations: int, dim: int) -> None:
        self.path, self.locations, self.dim = path, locations, dim

    def append(self, file: BinaryIO, maps: Float[Tensor, "batch dim h w"]) -> None:
        """Append the maps of a batch to the file, which the caller has opened.

        Raises:
            ShapeError: A value exceeds the range of half precision.
        """
        stored = maps.flatten(2).mT.to("cpu", torch.float16)
        if not stored.isfinite().all():
            raise ShapeError(
                "The teacher's maps have values beyond 65504, but letkd stores them in half "
                "precision; name another feature, such as one after a norm layer."
            )
        file.write(stored.contiguous().numpy().tobytes())

    def read(self, images: Int[Tensor, " images"]) -> Float[Tensor, "rows dim"]:
        """Read the rows of some images, in full precision."""
        # Mapped anew each time: pages of a mapping that stays open count as memory of the process.
        whole = np.memmap(self.path, np.float16, "r").reshape(-1, self.locations, self.dim)
        return torch.from_numpy(whole[images.numpy()]).float().flatten(0, 1)
