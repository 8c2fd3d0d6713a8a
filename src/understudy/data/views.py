"""Views: augmented versions of images, the same in any order, process and machine.

View v of image i under seed s is a pure function of (s, i, v): its random numbers are a hash of the
three, or come from a generator seeded with that hash.

A view number v may be any integer from 0; `CLEAN` is the view of evaluation. Where an augmentation
has finitely many results (`Views.count`), many view numbers give the same pixels: `Views.number`
maps a view number to the number of its result, by which a teacher's outputs are stored.
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
from understudy.config.image_size import Size, in_words, of_sides, sides
from understudy.data import _transforms
from understudy.data._random import counter_hash as counter_hash
from understudy.data._random import uniform
from understudy.data._transforms import PAD
from understudy.data._transforms import Augment as Augment
from understudy.data._transforms_check import check_on_view, check_on_whole_image
from understudy.data.evaluation_view import EvaluationView
from understudy.data.named_transforms import NONE, NamedTransforms
from understudy.data.source import Source
from understudy.errors import DataError
from understudy.functional import seeded

CLEAN = -1
"""View number of evaluation: resize and centre crop, nothing random."""

Finite = Literal["none", "flip", "crop_flip"]
"""Augmentations with finitely many views of an image."""

_WHITE = torch.tensor(255.0)

ViewBatch = Tensor | tuple[Tensor, Objects]
"""Images `(batch, 3, height, width)` with values in [0, 1]; with their objects for detection."""


class Views(ABC):
    """Views of the images of one source."""

    size: Size
    """Side of square views in pixels, or height and width; 0 if sizes differ."""
    description: str
    """All that the pixels of `show(index, number)` depend on beside the images.

    A bank of stored teacher outputs compares it. It holds the seed only where `show` depends on it.
    """
    count: int | None
    """Number of different views of an image; None if there are infinitely many."""
    evaluation: EvaluationView
    """What `CLEAN` makes of any image, also of one that is not in the source."""

    @abstractmethod
    def __call__(self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]) -> ViewBatch:
        """Return view `view` of each image in `index`; `CLEAN` for the view of evaluation."""

    @abstractmethod
    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Map view numbers to numbers among the different views of each image.

        In [0, count) where views are finitely many; else the view number itself, -1 for `CLEAN`.
        """

    @abstractmethod
    def show(self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]) -> ViewBatch:
        """Return the views that have these numbers, as `number` gives them."""


@final
class MemoryViews(Views):
    """Crop and mirror of small images, a whole batch in one gather, on the device of the pixels.

    An image has finitely many views: 9 × 9 positions of the crop, mirrored or not, are 162. Equal
    to the bit to torchvision's pad, crop and flip of each image.

    The values of a crop lie within one span of the flattened padded image, from its first to its
    last. A batch of spans is gathered by one offset per image, and its crops are strided windows of
    them, without a loop over images.
    """

    def __init__(
        self,
        pixels: UInt8[Tensor, "images 3 height width"],
        *,
        augment: Finite,
        size: Size,
        seed: int,
        channels_last: bool = False,
    ) -> None:
        """Pad and mirror all images once.

        Args:
            pixels: All images of the source.
            augment: Name of the augmentation.
            size: Size of the views in pixels; others than that of the images are resized.
            seed: With image and view number, all that a view depends on.
            channels_last: Memory layout of the batches.
        """
        self.size, self.seed = size, seed
        self._positions = 2 * PAD + 1 if augment == "crop_flip" else 1
        self._mirrors = 1 if augment == "none" else 2
        self.channels, self.height, self.width = pixels.shape[1:]
        self.count: int = self._mirrors * self._positions**2
        self._sides = sides(size)
        fits = (self.height, self.width) == self._sides
        square = self.height == self.width and isinstance(size, int)
        self.evaluation = EvaluationView(size, size, squash=not square, rounded=fits)
        self.description = (
            f"{augment}, {self.height} × {self.width} to {in_words(size)}, {self.count} views"
        )
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._images = len(pixels)
        self._crop = (self.channels, self.height, self.width)
        self._set_pixels(_padded(pixels, self._positions // 2, self._mirrors, layout))

    def _set_pixels(
        self, padded: UInt8[Tensor, "mirrored_images 3 padded_height padded_width"]
    ) -> None:
        """Take the padded pixels, and derive all that depends on their strides and device."""
        self._padded = padded
        self._image_stride, *self._strides = padded.stride()
        span = 1 + sum((n - 1) * s for n, s in zip(self._crop, self._strides, strict=True))
        # Row r of this overlapping view is the span that starts at value r: no memory is copied.
        self._spans = padded.as_strided((padded.numel() - span + 1, span), (1, 1))
        self._corners = self._corner_offsets(self._images).to(padded.device)
        # Dividing by a plain number, a GPU would multiply by its rounded reciprocal instead.
        self._white = _WHITE.to(padded.device)

    def to(self, device: torch.device) -> "MemoryViews":
        """Return the same views with the pixels on another device."""
        moved = copy(self)
        moved._set_pixels(self._padded.to(device))
        return moved

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Draw which of the `count` views is view `view` of each image; `CLEAN` is the centre."""
        drawn = uniform(self.count, self.seed, index, view)
        return torch.where(view == CLEAN, self._positions**2 // 2, drawn)

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return view `view` of each image in `index`, with values in [0, 1]."""
        return self.show(index, self.number(index, view))

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the view of each image in `index` that has this `number` in [0, count)."""
        device = self._spans.device
        corners = self._corners.index_select(0, number.to(device))
        gathered = self._spans.index_select(0, corners + index.to(device) * self._image_stride)
        strides = (gathered.shape[1], *self._strides)
        crops = gathered.as_strided((len(gathered), *self._crop), strides)
        images = crops.float().div_(self._white)
        if (self.height, self.width) == self._sides:
            return images
        return F.interpolate(images, self._sides, mode="bilinear", antialias=True).clamp(0, 1)

    def _corner_offsets(self, images: int) -> Int64[Tensor, " count"]:
        """Return the offset of a view's first value from that of its image, for every view."""
        sides = (self._mirrors, self._positions, self._positions)
        mirrored, top, left = torch.meshgrid(*map(torch.arange, sides), indexing="ij")
        # Torchvision crops first, then flips: a crop from the left is one from the right of the
        # mirrored image.
        left = torch.where(mirrored == 1, self._positions - 1 - left, left)
        _, row, column = self._strides
        return (mirrored * images * self._image_stride + top * row + left * column).flatten()


def _padded(
    pixels: UInt8[Tensor, "images 3 height width"],
    margin: int,
    mirrors: int,
    layout: torch.memory_format,
) -> UInt8[Tensor, "mirrored_images 3 padded_height padded_width"]:
    """Pad the images with a black margin; with two `mirrors`, append all of them mirrored.

    Mirroring a batch takes longer than all the rest of a view; the mirrored copy costs only memory.
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
    """Any torchvision transform, image by image, with torch seeded by (seed, image, view).

    A custom `transform` takes a uint8 image `(3, height, width)`, draws its random numbers from
    torch alone, and returns an image of the size `size`, as uint8 or as floats in [0, 1]. For
    `paired`, it takes and returns an image and its target.
    """

    def __init__(
        self,
        source: Source,
        *,
        augment: Augment,
        size: Size,
        seed: int,
        jitter: float = 0.0,
        channels_last: bool = False,
        transform: Callable[..., Any] | None = None,
        named: NamedTransforms = NONE,
    ) -> None:
        """Build the transforms, and try those that are `named` on an image of noise.

        Raises:
            RecipeError: A named transform returns no view of this size, or not the same for one
                seed.
        """
        check_on_whole_image(named.first)
        check_on_view(named.last, size)
        self.source, self.size, self.seed = source, size, seed
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        native = _native(source)
        self.clean = _transforms.clean(size, native=native, augment=augment)
        steps = _transforms.augmented(augment, size, native=native, jitter=jitter)
        self.transform = transform or v2.Compose(steps)
        self._named = named
        # A random resized crop reads no more of an image than the crop: see RandomResizedCrop.of.
        whole = transform is not None or bool(named.first)
        reads_crop = not whole and isinstance(steps[0], _transforms.RandomResizedCrop)
        self._crop, self._after_crop = steps[0] if reads_crop else None, steps[1:]
        self.count = None
        resized, squash = _transforms.clean_resize(size, native=native, augment=augment)
        self.evaluation = EvaluationView(resized, size, squash=squash)
        self.description = f"{self.transform}, seed {seed}; evaluation: {self.clean}"
        if named:
            self.description += f"; transforms: {named.description}"

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Return the view number itself; -1 for `CLEAN`."""
        return view

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the view of each image in `index` that has this number."""
        return self(index, number)

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return view `view` of each image in `index`, with values in [0, 1]."""
        shape = (len(index), 3, *sides(self.size))
        batch = torch.empty(shape, memory_format=self.layout)
        for row, (i, v, s) in zip(batch, self._rows(index, view), strict=True):
            with seeded(s):
                _copy_as_floats(self._image(i, v), row)
        return batch

    def paired(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> list[tuple[Float[Tensor, "3 height width"], Any]]:
        """Return the same views, each with the transformed target of its image.

        Boxes and masks (`torchvision.tv_tensors`) are transformed with the image, anything else is
        returned unchanged, as transforms of torchvision do.
        """
        pairs = []
        for i, v, s in self._rows(index, view):
            named = [] if v == CLEAN else [*self._named.first, self.transform, *self._named.last]
            image, target = tv_tensors.Image(self.source.image(i)), self.source.target(i)
            with seeded(s):
                for transform in named or [self.clean]:
                    image, target = transform(image, target)
            pairs.append((_floats(image.as_subclass(Tensor)), target))
        return pairs

    def _rows(self, index: Tensor, view: Tensor) -> list[tuple[int, int, int]]:
        """Return image, view and seed of every row of a batch."""
        seeds = counter_hash(self.seed, index, view)
        return list(zip(index.tolist(), view.tolist(), seeds.tolist(), strict=True))

    def _image(self, i: int, view: int) -> Any:
        if view == CLEAN:
            return self.clean(self.source.image(i))
        if self._crop is None:
            image = self.source.image(i)
            steps = [*self._named.first, self.transform]
        else:
            image, steps = self._crop.of(self.source, i), [*self._after_crop]
        for transform in [*steps, *self._named.last]:
            image = transform(image)
        return image


def make_views(
    source: Source,
    *,
    augment: Augment,
    size: Size,
    seed: int,
    jitter: float = 0.0,
    channels_last: bool = False,
    named: NamedTransforms = NONE,
) -> Views:
    """Return the views of a source: of whole batches if that is possible, else image by image.

    Whole batches need pixels in memory and an augmentation with finitely many views; random resized
    crops, colour jitter and named transforms are done image by image.

    Args:
        source: Images to augment.
        augment: Name of the augmentation.
        size: Size of the views in pixels.
        seed: With image and view number, all that a view depends on.
        jitter: Strength of torchvision's `ColorJitter` in brightness, contrast and saturation.
        channels_last: Memory layout of the batches: channels last instead of planes.
        named: Further transforms.

    Raises:
        DataError: The jitter is negative, or the augmentation is only for images with boxes.
        RecipeError: A named transform returns no view, or not the same for one seed.
    """
    if source.pixels is not None and augment in get_args(Finite) and not jitter and not named:
        return MemoryViews(
            source.pixels,
            augment=cast(Finite, augment),
            size=size,
            seed=seed,
            channels_last=channels_last,
        )
    return FileViews(
        source,
        augment=augment,
        size=size,
        seed=seed,
        jitter=jitter,
        channels_last=channels_last,
        named=named,
    )


def _native(source: Source) -> Size | None:
    """Return the size of the images of a source if all have the same, as far as that is known."""
    if source.size is None and source.pixels is not None:
        return of_sides(*source.pixels.shape[2:])
    return source.size


def _copy_as_floats(image: Tensor, row: Float[Tensor, "3 height width"]) -> None:
    """Write an image as floats into its row of a batch, in a single pass over memory."""
    if image.shape != row.shape:
        raise DataError(
            f"The transform returned an image of shape {tuple(image.shape)} where "
            f"{tuple(row.shape)} is expected; let it end in a resize or crop to data.size."
        )
    if image.dtype == torch.uint8:
        torch.div(image, _WHITE, out=row)
    else:
        row.copy_(image)


def _floats(image: Tensor) -> Float[Tensor, "3 height width"]:
    return image / _WHITE if image.dtype == torch.uint8 else image.float()
