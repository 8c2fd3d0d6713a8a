"""Images that are not decoded before training: those of very many, of which a sample is read."""

from collections.abc import Callable
from pathlib import Path

from understudy.data.replaced import LazySource, ReplacedSource
from understudy.data.source import Source, Unreadable
from understudy.data.sources._cache import NOTES
from understudy.data.sources._files import IN_MEMORY, is_small
from understudy.data.subset import evenly
from understudy.errors import DataError

LISTED = 10_000
"""Most images of a split that are all decoded before training."""
SAMPLE = 64
"""Images that are looked at in the place of all, evenly spread."""


def kept_in_memory(count: int, side: int | None) -> bool:
    """Return True if images are all decoded nevertheless, as they are small and not too many."""
    return count <= IN_MEMORY and is_small(count, side)


def side_of_sample(
    count: int, sides_of: Callable[[int], tuple[int, int]], what: str, sample: int = SAMPLE
) -> int | None:
    """Return the side of the images of a sample if all are squares of one size, else None.

    Args:
        count: Number of images.
        sides_of: Returns height and width of an image by its number.
        what: What the images are called in a message, such as `files`.
        sample: Images that are looked at, at most.

    Raises:
        DataError: None of them can be read.
    """
    rows, sides, faults = evenly(count, sample).tolist(), set[int](), list[DataError]()
    for i in rows:
        try:
            sides.update(sides_of(i))
        except DataError as error:
            faults.append(error)
    if len(faults) == len(rows):
        raise DataError(f"None of {len(rows)} sampled {what} can be read, first: {faults[0]}")
    return sides.pop() if len(sides) == 1 else None


def why_undecoded() -> str:
    """Return why images are not opened before training, and what becomes of faulty ones."""
    return (
        f"since they are more than {LISTED:,}. A faulty one is found when it is decoded, counted, "
        "and replaced by the next of its class (data.unreadable=fail stops there)."
    )


def replacing(source: LazySource, folder: Path, unreadable: Unreadable) -> Source:
    """Return a source whose faulty images are replaced, unless `unreadable` is `fail`.

    Args:
        source: Images, of which some may be faulty.
        folder: Where faulty ones are noted.
        unreadable: What to do with images that cannot be decoded.
    """
    return source if unreadable == "fail" else ReplacedSource(source, folder / NOTES)
