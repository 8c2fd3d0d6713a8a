"""Views: augmented versions of images, replayable in any order, by any process, on any machine.

View v of image i under seed s is a pure function of (s, i, v). There is no generator whose state
could depend on what was drawn before: the random number itself is a hash of the three counters.
The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014) applied once per counter; torch's
int64 multiplication wraps around modulo 2^64, which is exactly the arithmetic the hash wants.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from understudy.data.source import Source

CLEAN = -1
"""View number of an image as evaluation shows it: resized and cut to its centre, nothing random."""

Augment = Literal["none", "flip", "crop_flip", "resized_crop"]
_PAD = 4
# timm and torchvision resize to 256 before they cut 224 pixels.
_MARGIN = 256 / 224


def mix(*counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """A hash of some counters, uniform over all 64-bit integers: SplitMix64 over a chain."""
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = (state ^ counter) - 0x61C8864680B583EB  # 0x9E37… as a signed number
        state = (state ^ _shift(state, 30)) * -0x40A7B892E31B1A47  # 0xBF58…
        state = (state ^ _shift(state, 27)) * -0x6B2FB644ECCEEE15  # 0x94D0…
        state = state ^ _shift(state, 31)
    return state


def uniform(below: int, *counters: int | Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """An integer in [0, below) for the counters; its bias is below 2^-50 for `below` < 2^13."""
    return _shift(mix(*counters), 1) % below


def _shift(x: Int64[Tensor, " batch"], bits: int) -> Int64[Tensor, " batch"]:
    # torch shifts the sign in from the left; the hash wants zeros there.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class Views(ABC):
    """Views of the images of one source, all squares of one size."""

    size: int
    description: str
    """What makes a view, its seed included where the seed changes what view `number` shows."""
    count: int | None
    """How many different views an image has; None if there is no end of them."""

    @abstractmethod
    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """View number `view` of each image in `index`, with values in [0, 1]; `CLEAN` for none."""

    @abstractmethod
    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Place of each view among all views of its image; -1 for one that has no place there."""

    @abstractmethod
    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """The view of each image in `index` that has this place."""


@final
class MemoryViews(Views):
    """Crop and mirror of small images, a whole batch in one gather, on the device of the pixels.

    The images of one source have finitely many views: 9 × 9 places of the crop, mirrored or not,
    are 162. Equal to the bit to torchvision's pad, crop and flip of each image.
    """

    def __init__(
        self,
        pixels: UInt8[Tensor, "images 3 height width"],
        *,
        augment: Literal["none", "flip", "crop_flip"],
        size: int,
        seed: int,
    ) -> None:
        self.size, self.seed = size, seed
        self.places = 2 * _PAD + 1 if augment == "crop_flip" else 1
        self.mirrors = 1 if augment == "none" else 2
        self.height, self.width = pixels.shape[2:]
        self.padded = F.pad(pixels, (self.places // 2,) * 4)
        self._inside = self._offsets()
        # Dividing by a plain number, a GPU would multiply by its rounded reciprocal instead.
        self._white = torch.tensor(255.0, device=pixels.device)
        self.count: int = self.mirrors * self.places**2
        self.description = f"{augment}, {self.height} × {self.width} to {size}, {self.count} views"

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
        device = self.padded.device
        index, number = index.to(device), number.to(device)
        mirrored, place = number // self.places**2, number % self.places**2
        top, left = place // self.places, place % self.places
        _, channels, height, width = self.padded.shape
        corner = (index * channels * height + top) * width + left
        flat = (corner[:, None] + self._inside[mirrored]).flatten()
        # index_select is several times faster than indexing with the same numbers.
        values = self.padded.flatten().index_select(0, flat)
        images = values.view(-1, channels, self.height, self.width) / self._white
        if (self.height, self.width) == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True).clamp(
            0, 1
        )

    def _offsets(self) -> Int64[Tensor, "2 values"]:
        """Distance from a crop's corner to each of its values, plain and mirrored."""
        _, channels, height, width = self.padded.shape
        channel, row, column = (
            torch.arange(n, device=self.padded.device) for n in (channels, self.height, self.width)
        )
        start = (channel[:, None, None] * height + row[:, None]) * width
        return torch.stack([(start + c).flatten() for c in (column, column.flip(0))])


@final
class FileViews(Views):
    """Any torchvision transform, image by image, its generator seeded by (seed, image, view).

    A `transform` of your own takes a uint8 image `(3, height, width)`, draws its random numbers
    from torch alone, and gives a square of side `size`, as uint8 or as floats in [0, 1].
    """

    def __init__(
        self,
        source: Source,
        *,
        augment: Augment,
        size: int,
        seed: int,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.source, self.size, self.seed = source, size, seed
        self.clean = _clean(size, native=source.size)
        self.transform = transform or _augmented(augment, self.clean, size)
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
        seeds = mix(self.seed, index, view).tolist()
        shown = zip(index.tolist(), view.tolist(), seeds, strict=True)
        return torch.stack([self._one(*numbers) for numbers in shown])

    def _one(self, i: int, view: int, seed: int) -> Float[Tensor, "3 size size"]:
        image = self.source.image(i)
        if view == CLEAN:
            return _floats(self.clean(image))
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the accelerators, which are not forked here.
            torch.default_generator.manual_seed(seed)
            return _floats(self.transform(image))


def of(source: Source, *, augment: Augment, size: int, seed: int) -> Views:
    """The views of a source: batched on the device if its pixels are in memory, else per sample."""
    if source.pixels is not None and augment != "resized_crop":
        return MemoryViews(source.pixels, augment=augment, size=size, seed=seed)
    return FileViews(source, augment=augment, size=size, seed=seed)


def _clean(size: int, *, native: int | None) -> v2.Transform:
    shorter = size if native == size else round(size * _MARGIN)
    return v2.Compose([v2.Resize(shorter, antialias=True), v2.CenterCrop(size)])


def _augmented(augment: Augment, clean: v2.Transform, size: int) -> v2.Transform:
    mirror = v2.RandomHorizontalFlip()
    steps: dict[Augment, list[v2.Transform]] = {
        "none": [clean],
        "flip": [clean, mirror],
        "crop_flip": [clean, v2.RandomCrop(size, padding=_PAD), mirror],
        "resized_crop": [v2.RandomResizedCrop(size, antialias=True), mirror],
    }
    return v2.Compose(steps[augment])


def _floats(image: Tensor) -> Float[Tensor, "3 size size"]:
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()
