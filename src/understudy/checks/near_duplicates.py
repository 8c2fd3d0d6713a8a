"""Near duplicates between splits: the same picture in another size, quality or brightness.

A picture's print is its 32×32 grey values, without their mean and scaled to length 1: the product
of two prints is the correlation of the pictures. Prints of 16×16 values select candidates. Bits of
a hash would not do: pictures on a flat ground, such as those of Fashion-MNIST, share all bits of a
64-bit difference hash with others by chance (13 % of its test images), while no two of its 25
million pairs of a test and a training image correlate by 0.995. A copy that was compressed again,
resized or made brighter does.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding
from understudy.data import Source
from understudy.data.subset import evenly
from understudy.errors import DataError
from understudy.experiment.shared_images import shared_images, split_pairs
from understudy.training import hardware
from understudy.words import agreeing, counted

SHORT, OF_METHODS, SECONDS = True, False, 3.0

SAME = 0.995
"""Correlation of two pictures from which they count as one."""

_CANDIDATE = 0.98
"""Correlation of prints of 16×16 values from which those of 32×32 are compared."""

_SIDE, _COARSE = 32, 16

_FLAT = 4 / 255
"""Standard deviation of grey values below which a picture shows nothing to compare."""

_ALIKE = 0.01
"""Share of pairs of training images that are alike: above it, likeness tells of no leak."""

_SHARE, _FEWEST = 0.01, 3
"""Share of the images looked at that are copies, and their number, for a warning."""

_TIME_SHARE, _MOST = 0.15, 20_000
"""Share of the time left for decoding the images of a split, and the most images of it."""


def check(examined: Examined) -> Iterator[Finding]:
    """Compare images of every split with those of the splits before it."""
    images = examined.images
    prints: dict[int, _Prints] = {}
    for first_name, first, second_name, second in split_pairs(
        images.train, images.validation, images.test
    ):
        for source in (first, second):
            if id(source) not in prints:
                prints[id(source)] = _printed(source, _TIME_SHARE * examined.seconds_left())
        exact = set(shared_images(first, second))
        yield from _compared(
            prints[id(first)], first_name, first, prints[id(second)], second_name, second, exact
        )


@dataclass(frozen=True)
class _Prints:
    """Prints of some images of a source.

    Attributes:
        index: Number of each image.
        fine: Prints of 32×32 values.
        coarse: Prints of 16×16 values.
        looked_at: Images that were decoded, flat ones included.
    """

    index: Int64[Tensor, " images"]
    fine: Float[Tensor, "images 1024"]
    coarse: Float[Tensor, "images 256"]
    looked_at: int


def _compared(
    first: _Prints,
    first_name: str,
    first_source: Source,
    second: _Prints,
    second_name: str,
    second_source: Source,
    exact: set[int],
) -> Iterator[Finding]:
    """Report the images of the second split that are near copies of some of the first."""
    if not len(first.index) or not len(second.index):
        return
    alike = _alike_by_chance(first)
    looked_at = (
        f"{second.looked_at:,} of {len(second_source):,} {second_name} and {first.looked_at:,} of "
        f"{len(first_source):,} {first_name} images looked at"
    )
    if alike > _ALIKE:
        yield Finding(
            "near_duplicates",
            "note",
            f"{100 * alike:.0f} % of all pairs of {first_name} images are nearly the same picture, "
            f"so that copies cannot be told from them ({looked_at}).",
        )
        return
    pairs = [(j, i, r) for j, i, r in _pairs(first, second) if j not in exact]
    if not pairs:
        yield Finding(
            "near_duplicates",
            "note",
            f"No near copy of a {first_name} image was found among the {second_name} images "
            f"({looked_at}).",
        )
        return
    j, i, r = max(pairs, key=lambda pair: pair[2])
    many = len(pairs) >= max(_FEWEST, _SHARE * second.looked_at)
    yield Finding(
        "near_duplicates",
        "warning" if many else "note",
        f"{counted(len(pairs), f'{second_name} image')} {agreeing(len(pairs), 'is', 'are')} "
        f"nearly {agreeing(len(pairs), f'a {first_name} image', f'{first_name} images')}, such as "
        f"{_example(second_source, j)} and {_example(first_source, i)} (correlation {r:.4f}; "
        f"{looked_at}): what is measured on them is too good.",
        advice=f"Remove {agreeing(len(pairs), 'it', 'them')} from one of the splits, or split by "
        "what they have in common.",
    )


def _printed(source: Source, seconds: float) -> _Prints:
    """Return the prints of as many images as fit into some seconds, drawn evenly."""
    index = evenly(len(source), _MOST)
    if source.pixels is not None:
        grey = torch.cat([_grey(part) for part in torch.split(source.pixels[index], 1000)])
        return _prints(index, grey)
    # In an order in which every beginning is spread over the source.
    order = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
    small, began = [], time.monotonic()
    with ThreadPool(hardware.cores()) as pool:
        for part in torch.split(order, 32):
            small += pool.map(lambda i: _of_file(source, i), part.tolist())
            if time.monotonic() - began > seconds:
                break
    read = [k for k, grey in enumerate(small) if grey is not None]
    if not read:
        return _prints(order[:0], torch.empty(0, _SIDE, _SIDE))
    return _prints(order[read], torch.cat([x for x in small if x is not None]))


def _of_file(source: Source, i: int) -> Tensor | None:
    try:
        return _grey(source.image(i)[None])
    except DataError:  # said where images are read to be trained on
        return None


def _grey(pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images 32 32"]:
    """Return grey values in [0, 1] of images of any sides, reduced to 32×32."""
    # Luma, which JPEG keeps best.
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey = (pixels.float() * weights).sum(1, keepdim=True) / 255
    return F.interpolate(grey, (_SIDE, _SIDE), mode="bilinear", antialias=True)[:, 0]


def _prints(index: Tensor, grey: Float[Tensor, "images 32 32"]) -> _Prints:
    contrast = grey.flatten(1).std(1) > _FLAT
    kept = grey[contrast]
    coarse = F.avg_pool2d(kept[:, None], _SIDE // _COARSE)[:, 0]
    return _Prints(index[contrast], _normed(kept), _normed(coarse), len(grey))


def _normed(grey: Float[Tensor, "images side side"]) -> Float[Tensor, "images values"]:
    flat = grey.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)


def _pairs(first: _Prints, second: _Prints) -> Iterator[tuple[int, int, float]]:
    """Yield each image of the second split with its nearest copy in the first, mirrored or not."""
    mirrored = _mirrored(second.coarse, _COARSE), _mirrored(second.fine, _SIDE)
    for rows in torch.split(torch.arange(len(second.index)), 1000):
        best = torch.full((len(rows),), -1.0)
        nearest = torch.zeros(len(rows), dtype=torch.int64)
        for coarse, fine in ((second.coarse, second.fine), mirrored):
            a, b = (coarse[rows] @ first.coarse.T > _CANDIDATE).nonzero().unbind(1)
            correlation = (fine[rows][a] * first.fine[b]).sum(1)
            for k in correlation.argsort().tolist():
                if correlation[k] > best[a[k]]:
                    best[a[k]], nearest[a[k]] = correlation[k], b[k]
        for row in (best >= SAME).nonzero().flatten().tolist():
            j, i = second.index[rows[row]], first.index[nearest[row]]
            yield int(j), int(i), float(best[row])


def _mirrored(prints: Float[Tensor, "images values"], side: int) -> Tensor:
    return prints.reshape(-1, side, side).flip(2).flatten(1)


def _alike_by_chance(prints: _Prints) -> float:
    """Return the share of pairs of images of one split that are nearly the same picture."""
    some = prints.fine[evenly(len(prints.fine), 1000)]
    if len(some) < 2:
        return 0.0
    same = int((some @ some.T >= SAME).sum()) - len(some)
    return same / (len(some) * (len(some) - 1))


def _example(source: Source, i: int) -> str:
    return str(source.paths[i]) if source.paths else f"image {i}"
