"""Input contract of a network: how images with values in [0, 1] are resized and normalised."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.config.image_size import ImageSize, Size, sides
from understudy.config.limits import Positive
from understudy.config.schema import convert
from understudy.errors import DataError, NetworkError, suggestion

_GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey image, as in ITU-R BT.601 and PIL."""


@dataclass(frozen=True)
class Input:
    """Input contract of a network: size and normalisation of its images.

    Attributes:
        size: Side in pixels that images are resized to, or height and width; None accepts any size
            unchanged.
        mean: Subtracted from each channel; of one value for a network of grey images, which
            colour images are converted to.
        std: Divides each channel; as many values as `mean`.
        interpolation: `nearest`, `bilinear` or `bicubic`.
        as_given: The network takes images exactly as they are given, normalised already; only
            the number of values in `mean` counts, which is that of the channels.
    """

    size: Size | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bicubic"
    # Not in the text form, by which a bank of teacher outputs knows its input contract.
    as_given: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        convert(ImageSize | None, self.size, "size")
        convert(tuple[float, ...], self.mean, "mean")
        convert(tuple[Positive, ...], self.std, "std")
        if not self.mean or len(self.std) not in (1, len(self.mean)):
            raise NetworkError(
                f"'mean' has {len(self.mean)} values and 'std' has {len(self.std)}: give both one "
                "value for each channel of the network."
            )
        known = ("nearest", "bilinear", "bicubic")
        if self.interpolation not in known:
            raise NetworkError(
                f"There is no interpolation {self.interpolation!r}"
                f"{suggestion(self.interpolation, known)}. There are: {', '.join(known)}."
            )

    @property
    def channels(self) -> int:
        """Number of channels of the images that enter the network."""
        return len(self.mean)

    def sides(self, default: Size) -> tuple[int, int]:
        """Return height and width of resized images, or a default if none are resized."""
        return sides(self.size or default)

    def unit_range(self, images: Tensor) -> Float[Tensor, "batch channels h w"]:
        """Return images as floats in the network's channels; uint8 is scaled from 0–255 to 0–1.

        Raises:
            DataError: The images are integers whose range is not known, or have other channels.
        """
        images = self._floating(images)
        if images.ndim != 4:
            raise DataError(
                f"Images must be one tensor (batch, channels, height, width), not of shape "
                f"{tuple(images.shape)}."
            )
        if images.shape[1] == self.channels:
            return images
        if self.as_given:
            number = images.shape[1]
            raise DataError(
                f"The images have {number} {'channel' if number == 1 else 'channels'}, but the "
                f"`example` that the network was wired with has {self.channels}: give images of "
                "as many channels as the example, or another example."
            )
        if self.channels == 1 and images.shape[1] == 3:
            shares = images.new_tensor(_GREY).view(-1, 1, 1)
            return (images * shares).sum(1, keepdim=True)
        if self.channels == 3 and images.shape[1] == 1:
            return images.expand(-1, 3, -1, -1)
        raise DataError(
            f"The images have {images.shape[1]} channels, and the network's 'mean' has "
            f"{self.channels} values: give images of so many channels, or correct 'mean' and 'std'."
        )

    def _floating(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            return images
        if images.dtype == torch.uint8 and not self.as_given:
            return images.float() / 255
        kind = str(images.dtype).removeprefix("torch.")
        raise DataError(
            f"The images are {kind}, but networks take floats: scale and normalise them first, "
            "such as `images.float() / 255`, or give an `Input`, with which uint8 is scaled to "
            "0–1."
        )

    def noise(self, size: tuple[int, int], like: Tensor) -> Float[Tensor, "2 channels h w"]:
        """Return two images of noise in [0, 1]; the global random state is not touched."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand((2, self.channels, *size), generator=generator).to(like)

    def resize(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Resize images to `size`, with values still in [0, 1]."""
        if self.size is None or images.shape[-2:] == sides(self.size):
            return images
        smooth = self.interpolation != "nearest"
        images = F.interpolate(
            images,
            size=sides(self.size),
            mode=self.interpolation,
            align_corners=False if smooth else None,
            antialias=smooth,
        )
        # Bicubic interpolation overshoots at edges; an image file could not hold such values.
        return images.clamp(0, 1)


ANY_INPUT = Input()
"""Input contract of a network that takes images of any size, not normalised."""


def as_given(channels: int) -> Input:
    """Return the input contract of a network that takes images as its user's loader gives them."""
    return Input(mean=(0.0,) * channels, std=(1.0,) * channels, as_given=True)
