"""The view of evaluation: how an image of any size is resized and cropped for a network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from understudy.config.image_size import Size, sides
from understudy.data._transforms import PillowResize, covering, resize

_WHITE = torch.tensor(255.0)


@dataclass(frozen=True)
class EvaluationView:
    """Steps from an image to the view of evaluation, which are the same for every image.

    Attributes:
        resize: Side that the shorter side is resized to; both sides with `squash`. Height and
            width: the image is resized so that it covers them, or to them with `squash`. None
            leaves images as they are.
        crop: Side of the square that is cut out of the centre, or height and width; None cuts
            nothing.
        squash: Resize to both sides, whatever the proportions.
        rounded: Resize by Pillow, to whole numbers from 0 to 255; otherwise by torch as floats.
        reduced: Shorter side to which larger images are reduced first, by torch; None for no such
            step.
    """

    resize: Size | None
    crop: Size | None
    squash: bool = False
    rounded: bool = True
    reduced: int | None = None

    def __call__(self, image: UInt8[Tensor, "3 height width"]) -> Float[Tensor, "3 side side"]:
        """Return the view of an image, with values in [0, 1]."""
        image = self._reduced(image)
        if self.resize is None:
            return image / _WHITE
        if self.rounded:
            resized = PillowResize(resized_sides(image, self.resize, squash=self.squash))
            return self._cropped(resized(image)) / _WHITE
        return self._cropped(self._resized(image / _WHITE))

    def _reduced(self, image: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
        shorter = min(image.shape[1:])
        if self.reduced is None or shorter <= self.reduced:
            return image
        height, width = (round(side * self.reduced / shorter) for side in image.shape[1:])
        return resize(image, (height, width))

    def _resized(self, image: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
        """Resize an image as floats."""
        assert self.resize is not None
        size = resized_sides(image, self.resize, squash=self.squash)
        if image.shape[1:] == size:
            return image
        return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)

    def _cropped(self, image: Tensor) -> Tensor:
        cropped: Tensor = image if self.crop is None else v2.CenterCrop(self.crop)(image)
        return cropped


def resized_sides(image: Tensor, resize: Size, *, squash: bool) -> tuple[int, int]:
    """Return height and width of an image once it is resized; the arguments are as above."""
    height, width = image.shape[-2:]
    if squash:
        return sides(resize)
    if isinstance(resize, tuple):
        return covering(resize, height, width)
    shorter = min(height, width)
    # Rounded down as in torchvision.
    return int(resize * height / shorter), int(resize * width / shorter)


WHOLE_IMAGE = EvaluationView(None, None)
"""View of an image that a detector resizes itself."""
