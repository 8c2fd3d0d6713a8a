"""Warn of images that are in two splits of a recipe: by their pixels, their content or their files.

Images in memory are compared by their pixels. Nothing else is decoded: where a source knows the
digests of its encoded images, these tell; of a source without them, the paths of the files.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from itertools import permutations
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from understudy.data import Source
from understudy.data.subset import Subset

LOGGER = logging.getLogger("understudy")


def warn_of_shared(
    train: Source, validation: Source | None, test: Source, source: str
) -> dict[str, str]:
    """Warn of images of one split that another one has too.

    Args:
        train: Training images.
        validation: Images that choose the best epoch, if there are any.
        test: Images that measure a finished student; may be those of validation.
        source: Name of the source, for the warning.

    Returns:
        Split → how many of its images are in a split before it, in words; empty where none are.
    """
    notes = dict[str, str]()
    for first_name, first, second_name, second in split_pairs(train, validation, test):
        if shared := shared_images(first, second):
            LOGGER.warning(
                _sentence(shared, first_name, second_name, second, source),
                # Other seeds hold out other images, so that their numbers differ.
                extra={"subject": f"{first_name} images in {second_name}"},
            )
            how_many = "all" if len(shared) == len(second) else f"{len(shared):,}"
            note = f"{how_many} of them {first_name} images too"
            notes[second_name] = "; ".join(filter(None, [notes.get(second_name), note]))
    return notes


def split_pairs(
    train: Source, validation: Source | None, test: Source
) -> list[tuple[str, Source, str, Source]]:
    """Return the pairs of splits of which no image may be in both, each with its name."""
    if validation is test:
        return [("training", train, "validation", test)]
    pairs = [("training", train, "test", test)]
    if validation is not None:
        pairs += [
            ("training", train, "validation", validation),
            ("validation", validation, "test", test),
        ]
    return pairs


def shared_images(first: Source, second: Source) -> list[int]:
    """Return the numbers of the images of the second source that are in the first one."""
    if first.pixels is not None and second.pixels is not None:
        return _common(_digests(first.pixels), _digests(second.pixels))
    if first.contents and second.contents:
        return _common(first.contents, second.contents)
    if isinstance(first, Subset) and isinstance(second, Subset) and first.source is second.source:
        return torch.isin(second.index, first.index).nonzero().flatten().tolist()
    if first.paths and second.paths and not _apart(first, second):
        return _common(_real_files(first), _real_files(second))
    return []


def _apart(first: Source, second: Source) -> bool:
    """Return True if all files of one lie in a folder in which the other one has none."""
    return any(
        one.top and not any(_are_nested(place, one.top) for place in _places(other))
        for one, other in permutations((first, second))
    )


def _places(source: Source) -> Iterable[str]:
    """Return the files of a source, or a folder that holds them."""
    return [source.top] if source.top else _real_files(source)


def _are_nested(place: str, folder: str) -> bool:
    """Return True if one of two places lies in the other one, or is it."""
    return Path(place).is_relative_to(folder) or Path(folder).is_relative_to(place)


def _real_files(source: Source) -> Iterator[str]:
    """Yield what every file is called, by whatever links it is reached."""
    if not source.top:
        return (str(path.resolve()) for path in source.paths)
    real = cache(os.path.realpath)
    return (os.path.join(real(path.parent), path.name) for path in source.paths)  # noqa: PTH118


def _digests(pixels: UInt8[Tensor, "images 3 height width"]) -> list[bytes]:
    shape = repr(tuple(pixels.shape[1:])).encode()
    return [sha256(image.tobytes() + shape).digest() for image in pixels.numpy()]


def _common(first: Iterable[str | bytes], second: Iterable[str | bytes]) -> list[int]:
    keys = list(second)
    # Of the two, the test images are fewer.
    known = set(keys)
    both = {key for key in first if key in known}
    return [i for i, key in enumerate(keys) if key in both]


def _sentence(
    shared: Sequence[int], first_name: str, second_name: str, second: Source, source: str
) -> str:
    example = str(second.paths[shared[0]]) if second.paths else f"image {shared[0]}"
    chosen_by = first_name == "validation"
    why = "the best epoch is chosen by them" if chosen_by else "the student has learnt them"
    as_well = f"are {first_name} images"
    if len(shared) == len(second):
        which = f"All {len(second):,} {second_name} images"
        remedy = (
            f"Name another {second_name} split in the data of the source {source!r}, or hold "
            "images out of the training split by data.validation."
        )
    else:
        which = f"{len(shared):,} of the {len(second):,} {second_name} images"
        remedy = f"Remove them from the {first_name} or the {second_name} split."
        if len(shared) == 1:
            as_well = f"is a {first_name} image"
            remedy = remedy.replace("them", "it")
    return (
        f"{which} {as_well} as well, such as {example}, so that what is measured on them "
        f"is too good: {why}. {remedy}"
    )
