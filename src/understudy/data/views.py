"""Views: augmented versions of images, replayable in any order, by any process, on any machine.

View v of image i under seed s is a pure function of (s, i, v): its random numbers are a hash of the
three, or drawn from a generator that starts from that hash.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any, Literal, cast, final, get_args

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.batch import Objects
from understudy.data import _transforms
from understudy.data._random import counter_hash as counter_hash
from understudy.data._random import uniform
from understudy.data._transforms import PAD
from understudy.data._transforms import Augment as Augment
from understudy.data.source import Source
from understudy.errors import DataError
from understudy.functional import seeded

CLEAN = -1
"""View number of an image as evaluation shows it: resized and cut to its centre, nothing random."""

Few = Literal["none", "flip", "crop_flip"]
"""Ways to augment that give an image finitely many views."""

_WHITE = torch.tensor(255.0)


Shown = Tensor | tuple[Tensor, Objects]
"""Images `(batch, 3, height, width)` with values in [0, 1], and their objects if they have any."""


class Views(ABC):
    """Views of the images of one source."""

    size: int
    """Side in pixels, if all are squares of one size; else 0."""
    description: str
    """What makes a view, its seed included where the seed changes what view `number` shows."""
    count: int | None
    """How many different views an image has; None if there is no end of them."""

    @abstractmethod
    def __call__(self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]) -> Shown:
        """View number `view` of each image in `index`; `CLEAN` for none."""

    @abstractmethod
    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Place of each view among all views of its image; -1 for one that has no place there."""

    @abstractmethod
    def show(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> Shown:
        """The view of each image in `index` that has this place."""


@final
class MemoryViews(Views):
    """Crop and mirror of small images, a whole batch in one gather, on the device of the pixels.

    The images of one source have finitely many views: 9 × 9 places of the crop, mirrored or not,
    are 162. Equal to the bit to torchvision's pad, crop and flip of each image.

    A crop lies in one stretch of the padded image, from its first value to its last: a batch is
    gathered by one number per image, and its crops are then strided windows of what was gathered.
    """

    def __init__(
        self,
        pixels: UInt8[Tensor, "images 3 height width"],
        *,
        augment: Few,
        size: int,
        seed: int,
        channels_last: bool = False,
    ) -> None:
        self.size, self.seed = size, seed
        self.places = 2 * PAD + 1 if augment == "crop_flip" else 1
        self.mirrors = 1 if augment == "none" else 2
        self.channels, self.height, self.width = pixels.shape[1:]
        self.count: int = self.mirrors * self.places**2
        self.description = f"{augment}, {self.height} × {self.width} to {size}, {self.count} views"
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._images = len(pixels)
        self._crop = (self.channels, self.height, self.width)
        self._lay(_padded(pixels, self.places // 2, self.mirrors, layout))

    def _lay(self, padded: UInt8[Tensor, "mirrored_images 3 padded_height padded_width"]) -> None:
        """Take the pixels where and how they lie."""
        self._padded = padded
        self._image, *self._strides = padded.stride()
        span = 1 + sum((n - 1) * s for n, s in zip(self._crop, self._strides, strict=True))
        self._stretches = padded.as_strided((padded.numel() - span + 1, span), (1, 1))
        self._corners = self._offsets(self._images).to(padded.device)
        # Dividing by a plain number, a GPU would multiply by its rounded reciprocal instead.
        self._white = _WHITE.to(padded.device)

    def on(self, device: torch.device) -> "MemoryViews":
        """The same views with the pixels on a device."""
        moved = copy(self)
        moved._lay(self._padded.to(device))
        return moved

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Which of the `count` views is shown as view number `view` of each image."""
        drawn = uniform(self.count, self.seed, index, view)
        return torch.where(view == CLEAN, self.places**2 // 2, drawn)

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """View number `view` of each image in `index`, with values in [0, 1]; `CLEAN` for none."""
        return self.show(index, self.number(index, view))

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """The view of each image in `index` that has this `number` in [0, count)."""
        device = self._stretches.device
        corners = self._corners.index_select(0, number.to(device))
        gathered = self._stretches.index_select(0, corners + index.to(device) * self._image)
        strides = (gathered.shape[1], *self._strides)
        crops = gathered.as_strided((len(gathered), *self._crop), strides)
        images = crops.float().div_(self._white)
        if (self.height, self.width) == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True).clamp(
            0, 1
        )

    def _offsets(self, images: int) -> Int64[Tensor, " count"]:
        """Distance from the first value of an image to that of its crop, for every view."""
        mirrored, top, left = torch.meshgrid(
            *(torch.arange(n) for n in (self.mirrors, self.places, self.places)), indexing="ij"
        )
        # In a mirrored image, what was cut from the left is cut from the right.
        left = torch.where(mirrored == 1, self.places - 1 - left, left)
        _, row, column = self._strides
        return (mirrored * images * self._image + top * row + left * column).flatten()


def _padded(
    pixels: UInt8[Tensor, "images 3 height width"],
    margin: int,
    mirrors: int,
    layout: torch.memory_format,
) -> UInt8[Tensor, "mirrored_images 3 padded_height padded_width"]:
    """The images in a black margin and, with two `mirrors`, after them all of them mirrored.

    To mirror a batch takes longer than all else that is done to it; the copy costs only memory.
    """
    images, channels, height, width = pixels.shape
    shape = (mirrors * images, channels, height + 2 * margin, width + 2 * margin)
    padded = torch.empty(
        shape, dtype=pixels.dtype, device=pixels.device, memory_format=layout
    ).zero_()
    inner = padded[:, :, margin : margin + height, margin : margin + width]
    inner[:images] = pixels
    if mirrors == 2:
        inner[images:] = pixels.flip(-1)
    return padded


@final
class FileViews(Views):
    """Any torchvision transform, image by image, its generator seeded by (seed, image, view).

    A `transform` of your own takes a uint8 image `(3, height, width)`, draws its random numbers
    from torch alone, and gives a square of side `size`, as uint8 or as floats in [0, 1]. For
    `paired`, it takes and gives an image and its target.
    """

    def __init__(
        self,
        source: Source,
        *,
        augment: Augment,
        size: int,
        seed: int,
        jitter: float = 0.0,
        channels_last: bool = False,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.source, self.size, self.seed = source, size, seed
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.clean = _transforms.clean(size, native=source.size, augment=augment)
        steps = _transforms.augmented(augment, size, native=source.size, jitter=jitter)
        self.transform = transform or v2.Compose(steps)
        random_part = transform is None and isinstance(steps[0], _transforms.RandomResizedCrop)
        self._crop, self._others = steps[0] if random_part else None, steps[1:]
        self.count = None
        self.description = f"{self.transform}, seed {seed}"

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """The view's own number: -1 for `CLEAN`, which is not among them."""
        return view

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """The view of each image in `index` that has this number."""
        return self(index, number)

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """View number `view` of each image in `index`, with values in [0, 1]; `CLEAN` for none."""
        shape = (len(index), 3, self.size, self.size)
        batch = torch.empty(shape, memory_format=self.layout)
        for row, (i, v, s) in zip(batch, self._numbers(index, view), strict=True):
            with seeded(s):
                _put(self._image(i, v), row)
        return batch

    def paired(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> list[tuple[Float[Tensor, "3 height width"], Any]]:
        """The same views, each with the target of its image as the transform leaves it.

        Boxes and masks (`torchvision.tv_tensors`) move along with the image, anything else is
        untouched: that is how transforms of torchvision treat a pair.
        """
        pairs = []
        for i, v, s in self._numbers(index, view):
            transform = self.clean if v == CLEAN else self.transform
            with seeded(s):
                image, target = transform(
                    tv_tensors.Image(self.source.image(i)), self.source.target(i)
                )
            pairs.append((_floats(image.as_subclass(Tensor)), target))
        return pairs

    def _numbers(self, index: Tensor, view: Tensor) -> list[tuple[int, int, int]]:
        """Image, view and seed of every row."""
        seeds = counter_hash(self.seed, index, view)
        return list(zip(index.tolist(), view.tolist(), seeds.tolist(), strict=True))

    def _image(self, i: int, view: int) -> Any:
        if view == CLEAN:
            return self.clean(self.source.image(i))
        if self._crop is None:
            return self.transform(self.source.image(i))
        image = self._crop.of(self.source, i)
        for transform in self._others:
            image = transform(image)
        return image


def make_views(
    source: Source,
    *,
    augment: Augment,
    size: int,
    seed: int,
    jitter: float = 0.0,
    channels_last: bool = False,
) -> Views:
    """The views of a source: batched on the device if its pixels are in memory, else per sample.

    Images that are resized from a random crop, or change colour, are shown one by one.

    Args:
        source: The images.
        augment: What is done to them.
        size: Side of the views in pixels.
        seed: With image and view, all that a view depends on.
        jitter: Strength of torchvision's `ColorJitter` in brightness, contrast and saturation.
        channels_last: Lay out the batches with the colours of a pixel side by side.

    Raises:
        DataError: A negative jitter.
    """
    if source.pixels is not None and augment in get_args(Few) and not jitter:
        few = cast(Few, augment)
        return MemoryViews(
            source.pixels, augment=few, size=size, seed=seed, channels_last=channels_last
        )
    return FileViews(
        source, augment=augment, size=size, seed=seed, jitter=jitter, channels_last=channels_last
    )


def _put(image: Tensor, row: Float[Tensor, "3 size size"]) -> None:
    """One image as floats in its place of a batch, in a single pass over memory."""
    if image.shape != row.shape:
        raise DataError(
            f"The transform gave an image of shape {tuple(image.shape)} where {tuple(row.shape)} "
            "is expected; let it end in a resize or crop to data.size."
        )
    if image.dtype == torch.uint8:
        torch.div(image, _WHITE, out=row)
    else:
        row.copy_(image)


def _floats(image: Tensor) -> Float[Tensor, "3 height width"]:
    return image / _WHITE if image.dtype == torch.uint8 else image.float()
