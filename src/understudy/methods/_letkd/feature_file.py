"""Features of every location of every training image, on disk rather than in memory."""

from pathlib import Path
from typing import BinaryIO, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.errors import ShapeError


@final
class Rows:
    """Maps of many images in one file of half precision, image by image, location by location.

    Args:
        path: The file.
        locations: Of each map.
        dim: Channels of each map.
    """

    def __init__(self, path: Path, locations: int, dim: int) -> None:
        self.path, self.locations, self.dim = path, locations, dim

    def append(self, file: BinaryIO, maps: Float[Tensor, "batch dim h w"]) -> None:
        """Write the maps of some more images to the file, opened by the caller.

        Raises:
            ShapeError: A value beyond what half precision holds.
        """
        stored = maps.flatten(2).mT.to("cpu", torch.float16)
        if not stored.isfinite().all():
            raise ShapeError(
                "The teacher's maps hold values beyond 65504, which are stored in half precision; "
                "name another feature, such as one behind a norm."
            )
        file.write(stored.contiguous().numpy().tobytes())

    def read(self, images: Int[Tensor, " images"]) -> Float[Tensor, "rows dim"]:
        """Rows of these images, in full precision."""
        # Mapped anew each time: pages of a mapping that stays count as memory of the process.
        whole = np.memmap(self.path, np.float16, "r").reshape(-1, self.locations, self.dim)
        return torch.from_numpy(whole[images.numpy()]).float().flatten(0, 1)
