"""Images in shards, by an index that is made once: where each image lies, and its label.

The index of a split is a file of columns in the user's cache. One process makes it, the others
wait; where some shards have changed, only these are read again.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data._image import decode, sides_of
from understudy.data.replaced import LazySource, found_since
from understudy.data.source import Source, Split, Unreadable, short_digest
from understudy.data.sources import _shards
from understudy.data.sources._cache import NOTES, cache_folder, made_once, opened
from understudy.data.sources._columns import Columns, Packed, store
from understudy.data.sources._files import in_memory_if_small
from understudy.data.sources._numbered import labels_of, names_of
from understudy.data.sources._shards import Shard
from understudy.data.sources._splits import no_split
from understudy.data.sources._undecoded import kept_in_memory, replacing, side_of_sample
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

_VERSION = 1
_NAME = "index.columns"
_SAMPLE = 16
"""Images that are looked at in the place of all: each may cost a request."""

Label = int | str | None
"""Label of an image as a shard tells it: a class number, a class name, or nothing."""


@dataclass(frozen=True)
class Sample:
    """An image in a shard.

    Attributes:
        key: What it is called.
        start: Where it begins: a byte, or a row.
        size: Its bytes.
        label: Its label.
        group: Images of a shard that are read together have the same number.
    """

    key: str
    start: int
    size: int
    label: Label
    group: int = 0


def _no_names(shard: Shard) -> list[str]:
    # No lambda, since a source is sent to worker processes.
    return []


@dataclass(frozen=True)
class Format:
    """A format of shards.

    Attributes:
        suffix: End of the names of shards.
        index: Lists the images of a shard in their order, with whatever reads them again.
        read: Returns the encoded image at a start, of a size, in a shard.
        names: Returns the class names that a shard tells, whose labels are their numbers.
    """

    suffix: str
    index: Callable[[Shard], Iterable[Sample]]
    read: Callable[[str, int, int], bytes]
    names: Callable[[Shard], list[str]] = _no_names


def load(form: Format, root: str, split: Split, unreadable: Unreadable) -> Source:
    """Return the images of one split, shard by shard.

    Raises:
        NoSplit: No shard is of this split.
        DataError: A shard is missing or damaged, or holds no images.
    """
    shards = _shards.of_splits(root, form.suffix)
    if split not in shards:
        if split == "train":
            raise DataError(f"{root} has no shards to train on; it has: {', '.join(shards)}.")
        raise no_split(split, root)
    indices = {name: _index(form, part) for name, part in shards.items()}
    columns = indices[split]
    # A class is the same in all splits, whichever of its images they hold.
    labels = [label for index in indices.values() for label in index.header["labels"]]
    names, numbers = _classes(labels, root, form.names(next(iter(shards.values()))[0]))
    source = ShardedSource(form, columns, [shard.place for shard in shards[split]], names, numbers)
    source.split_name = split
    return _in_memory_if_small(replacing(source, columns.file.parent, unreadable))


def _in_memory_if_small(source: Source) -> Source:
    """Decode all images if they are small and few; else return the source unchanged."""
    if not kept_in_memory(len(source), source.size):
        return source
    # The side is that of a sample.
    if not source.sides().eq(source.size or 0).all():
        source.size = None
        return source
    loaded = in_memory_if_small(source)
    loaded.skipped = (*source.skipped, *found_since(source))
    loaded.shards, loaded.split_name = source.shards, source.split_name
    return loaded


@final
class ShardedSource(LazySource):
    """Images in shards, each read by its place when it is asked for."""

    def __init__(
        self,
        form: Format,
        columns: Columns,
        places: Sequence[str],
        classes: Sequence[str],
        numbers: dict[int | str, int],
    ) -> None:
        """Store the index; nothing is read.

        Args:
            form: Format of the shards.
            columns: Index of the shards.
            places: Where the shards are.
            classes: Class names in the order of the labels.
            numbers: Label as the shards tell it → class number.
        """
        self._form, self._columns, self._places = form, columns, tuple(places)
        self.classes, self.skipped = tuple(classes), ()
        # The last number stands for -1, no label.
        order = [numbers[label] for label in columns.header["labels"]] + [UNLABELLED]
        self.labels = torch.tensor(order)[torch.from_numpy(columns["label"]).long()]
        self._firsts = torch.from_numpy(columns["shard"])
        self.shards = torch.from_numpy(columns["group"]).clone()
        self.size = columns.header["side"]

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode image `i`; `DataError` if it cannot be decoded, or its shard not be read."""
        return decode(BytesIO(self._content(i)), name=self.name(i))

    def sides_of(self, i: int) -> tuple[int, int]:
        """Return height and width of image `i`, read from its header."""
        return sides_of(BytesIO(self._content(i)))

    def name(self, i: int) -> str:
        """Return shard and key of image `i`."""
        return f"{self._places[self._shard(i)]}: {self._columns.texts('key')[i]}"

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of the shards' names and sizes, and the keys and sizes of images."""
        columns = self._columns
        digest = sha256(repr(columns.header["shards"]).encode())
        for name in ("shard", "key", "key.ends", "size"):
            digest.update(columns[name].tobytes())
        return digest.hexdigest()[:16]

    def _content(self, i: int) -> bytes:
        start, size = int(self._columns["start"][i]), int(self._columns["size"][i])
        return self._form.read(self._places[self._shard(i)], start, size)

    def _shard(self, i: int) -> int:
        return int(torch.searchsorted(self._firsts, i, right=True)) - 1


def _index(form: Format, shards: Sequence[Shard]) -> Columns:
    """Return the index of some shards, made by one process if it is missing or outdated."""
    key = short_digest([shard.place for shard in map(_absolute, shards)])
    folder, stamps = cache_folder() / "shards" / key, [[s.size, s.stamp] for s in shards]

    def is_current(columns: Columns) -> bool:
        header = columns.header
        return bool(header["version"] == _VERSION and header["stamps"] == stamps)

    def make(file: Path) -> bool:
        before = opened(folder, _NAME, lambda columns: columns.header["version"] == _VERSION)
        _store(file, form, shards, before)
        return True

    columns = made_once(folder, _NAME, is_current, make)
    assert columns is not None
    return columns


def _absolute(shard: Shard) -> Shard:
    if _shards.is_address(shard.place):
        return shard
    return Shard(str(Path(shard.place).absolute()), shard.size, shard.stamp)


def _store(file: Path, form: Format, shards: Sequence[Shard], before: Columns | None) -> None:
    """Write the index of some shards; what an earlier one tells of unchanged ones is kept."""
    file.with_name(NOTES).unlink(missing_ok=True)
    keys, labels = Packed(), dict[int | str, int]()
    starts, sizes, numbers = list[np.ndarray[Any, Any]](), list[np.ndarray[Any, Any]](), []
    counts, groups, read = [0], [0], 0
    for place, shard in enumerate(shards):
        samples = _known(before, place, shard)
        if samples is None:
            samples, read = list(form.index(shard)), read + 1
        keys.extend(sample.key for sample in samples)
        starts.append(np.array([sample.start for sample in samples], np.int64))
        sizes.append(np.array([sample.size for sample in samples], np.int64))
        values = [
            labels.setdefault(x, len(labels)) if x is not None else -1
            for x in (sample.label for sample in samples)
        ]
        numbers.append(np.array(values, np.int32))
        groups += _ends(samples, counts[-1])
        counts.append(counts[-1] + len(samples))
    if not len(keys):
        raise DataError(f"The {len(shards)} shards of {shards[0].place} … hold no images.")
    columns = {
        **keys.columns("key"),
        "start": np.concatenate(starts),
        "size": np.concatenate(sizes),
        "label": np.concatenate(numbers),
        "shard": np.array(counts, np.int64),
        "group": np.array(groups, np.int64),
    }
    header = {
        "version": _VERSION,
        "stamps": [[shard.size, shard.stamp] for shard in shards],
        "shards": [[shard.name, shard.size] for shard in shards],
        "labels": list(labels),
        "side": _side(form, shards, columns),
    }
    store(file, header, columns)
    LOGGER.info(
        f"{len(keys):,} images in {len(shards):,} shards are indexed in {file}"
        + (f" ({read:,} of the shards were read)." if before else ".")
    )


def _ends(samples: Sequence[Sample], before: int) -> list[int]:
    """Return behind which images the groups of a shard end."""
    groups = [sample.group for sample in samples]
    pairs = enumerate(zip(groups, [*groups[1:], -1], strict=True), before + 1)
    return [i for i, (group, following) in pairs if group != following]


def _known(before: Columns | None, place: int, shard: Shard) -> list[Sample] | None:
    """Return what an earlier index tells of a shard that has not changed since."""
    if before is None or before.header["stamps"][place] != [shard.size, shard.stamp]:
        return None
    first, last = before["shard"][place : place + 2].tolist()
    rows = slice(first, last)
    labels = [*before.header["labels"], None]
    return [
        Sample(key, start, size, labels[label], group)
        for key, start, size, label, group in zip(
            before.texts("key")[rows],
            before["start"][rows].tolist(),
            before["size"][rows].tolist(),
            before["label"][rows].tolist(),
            np.searchsorted(before["group"], np.arange(first, last), side="right").tolist(),
            strict=True,
        )
    ]


def _side(form: Format, shards: Sequence[Shard], columns: dict[str, Any]) -> int | None:
    """Return the side of the images of a sample if all are squares of one size, else None."""

    def sides(i: int) -> tuple[int, int]:
        place = shards[int(np.searchsorted(columns["shard"], i, side="right")) - 1].place
        content = form.read(place, int(columns["start"][i]), int(columns["size"][i]))
        return sides_of(BytesIO(content))

    return side_of_sample(len(columns["start"]), sides, "images", _SAMPLE)


def _classes(
    labels: Sequence[int | str], root: str, names: list[str]
) -> tuple[list[str], dict[int | str, int]]:
    """Return class names, and the class number of every label, of all splits together."""
    if names:
        numbered: dict[int | str, int] = {x: x for x in labels if isinstance(x, int)}
        if len(numbered) < len(set(labels)) or max(numbered.values(), default=0) >= len(names):
            raise DataError(f"{root} names {len(names)} classes, but has other labels than these.")
        return names, numbered
    texts = sorted({label for label in labels if isinstance(label, str)})
    if not texts:
        numbers = [label for label in labels if isinstance(label, int)]
        if (least := min(numbers, default=0)) < UNLABELLED:
            raise DataError(f"{root} has the label {least}; class numbers start from 0.")
        names = names_of(numbers)
        return names, dict(zip(numbers, labels_of(numbers, names), strict=True))
    if len(texts) < len(set(labels)):
        raise DataError(
            f"{root} has class numbers and class names as labels, such as {texts[0]!r}: write all "
            "in one way."
        )
    return texts, {name: i for i, name in enumerate(texts)}
