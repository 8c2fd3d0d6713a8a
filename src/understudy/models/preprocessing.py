"""Input contract of a network: how images with values in [0, 1] are resized and normalised."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import NetworkError, suggestion


@dataclass(frozen=True)
class Input:
    """Input contract of a network: size and normalisation of its images.

    Attributes:
        size: Side in pixels that images are resized to; None accepts any size unchanged.
        mean: Subtracted from each channel.
        std: Divides each channel.
        interpolation: `nearest`, `bilinear` or `bicubic`.
    """

    size: int | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        known = ("nearest", "bilinear", "bicubic")
        if self.interpolation not in known:
            raise NetworkError(
                f"There is no interpolation {self.interpolation!r}"
                f"{suggestion(self.interpolation, known)}. There are: {', '.join(known)}."
            )

    def resize(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 size size"]:
        """Resize images to `size`, with values still in [0, 1]."""
        if self.size is None or images.shape[-2:] == (self.size, self.size):
            return images
        smooth = self.interpolation != "nearest"
        images = F.interpolate(
            images,
            size=(self.size, self.size),
            mode=self.interpolation,
            align_corners=False if smooth else None,
            antialias=smooth,
        )
        # Bicubic interpolation overshoots at edges; an image file could not hold such values.
        return images.clamp(0, 1)


ANY_INPUT = Input()
"""Input contract of a network that takes images of any size, not normalised."""
