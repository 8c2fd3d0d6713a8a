"""Outputs of a network for the same images prepared in other ways."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.batch import Batch
from understudy.config.image_size import Size, in_words, pixels
from understudy.models.network import Network

NORMALISATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's normalisation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "values from -1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "values from 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "CIFAR's normalisation": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "values from 0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Normalisations that are in use: means and standard deviations by name."""

_SIZES = (32, 64, 96, 128, 160, 224, 256, 288, 384)


@dataclass(frozen=True)
class Preparation:
    """How images are prepared for a network.

    Attributes:
        size: Size in pixels; None for that of the views.
        mean: Subtracted from each channel.
        std: Divides each channel.
        reversed: True if the channels are reversed once they are normalised: blue, green, red.
        words: What differs from the preparation of the recipe.
    """

    size: Size | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reversed: bool = False
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: Network) -> "Preparation":
        """Return the preparation of a network by its input contract."""
        return cls(network.input.size, network.input.mean, network.input.std)

    def normalised(self) -> Iterator["Preparation"]:
        """Yield the same with every other normalisation that is in use."""
        for name, (mean, std) in NORMALISATIONS.items():
            near = max(abs(a - b) for a, b in zip(mean + std, self.mean + self.std, strict=False))
            if len(self.mean) == 3 and near > 0.05:
                yield replace(self, mean=mean, std=std, words=(*self.words, name))

    def swapped(self) -> Iterator["Preparation"]:
        """Yield the same with the channels in the other order."""
        if len(self.mean) == 3:
            yield replace(self, reversed=True, words=(*self.words, "channels in the order BGR"))

    def resized(self, view_size: Size) -> Iterator["Preparation"]:
        """Yield the same with other sizes, the nearest first."""
        own = self.size or view_size
        side = pixels(own) ** 0.5
        sizes = {view_size, *(s for s in _SIZES if side / 8 <= s <= 2 * side)} - {own}
        for size in sorted(sizes, key=lambda s: abs(pixels(s) ** 0.5 - side)):
            words = (*self.words, f"images of {in_words(size)} pixels")
            yield replace(self, size=size, words=words)


def logits(
    network: Network,
    preparation: Preparation,
    batches: Sequence[Batch],
    outputs: Callable[[Batch], Mapping[str, Tensor]],
) -> Tensor | None:
    """Return the logits of a network for images that are prepared in some way.

    Args:
        network: In evaluation mode; its input contract is the same afterwards.
        preparation: How to prepare them.
        batches: Images in [0, 1], on the network's device.
        outputs: Computes the network's outputs.

    Returns:
        The logits; None if the network does not take images of this size.
    """
    with _prepared(network, preparation):
        try:
            prepared = [swapped(batch) if preparation.reversed else batch for batch in batches]
            rows = [outputs(batch)["logits"] for batch in prepared]
        except (RuntimeError, AssertionError, ValueError):  # a transformer of one size, for one
            return None
    return torch.cat(rows).float().cpu()


def swapped(batch: Batch) -> Batch:
    """Return images with the channels in the other order: blue, green, red."""
    return replace(batch, images=batch.images.flip(1))


@contextmanager
def _prepared(network: Network, preparation: Preparation) -> Iterator[None]:
    """Let a network prepare images in another way for a while."""
    before = network.input
    buffers = network.get_buffer("_mean"), network.get_buffer("_std")
    values = [buffer.clone() for buffer in buffers]
    # Reversed images have the statistics of their channels reversed too.
    step = -1 if preparation.reversed else 1
    mean, std = preparation.mean[::step], preparation.std[::step]
    try:
        network.input = replace(before, size=preparation.size, mean=mean, std=std)
        for buffer, value in zip(buffers, (mean, std), strict=True):
            buffer.copy_(buffer.new_tensor(value).view(-1, 1, 1))
        yield
    finally:
        network.input = before
        for buffer, saved in zip(buffers, values, strict=True):
            buffer.copy_(saved)


class Clock:
    """Time for trials: whether another one that takes as long as the longest so far fits."""

    def __init__(self, seconds: float) -> None:
        self._ends, self._longest, self._last = time.monotonic() + seconds, 0.0, time.monotonic()

    def allows_another(self) -> bool:
        """Return True if there is time for another trial; called before each."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        return now + self._longest <= self._ends
