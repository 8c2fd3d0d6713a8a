"""Images in parquet files, as data sets of Hugging Face are stored: `train-00000-of-00004.parquet`.

Files are a folder, a pattern such as `data/train-*.parquet`, several of these with commas, a `.txt`
file that lists them, or addresses (`hf://datasets/OWNER/NAME/data/train-*.parquet`, `s3://`). They
are read by row groups and never as a whole, and nothing is decoded before training. The column of
images is the first of Hugging Face's type `Image`, or of bytes called `image`, `img`, `jpg`, `png`
or `webp`; labels are a `ClassLabel`, or whole numbers or names in a column `label`, `labels`,
`fine_label`, `target` or `class`. An image that is read alone costs its whole row group:
`data.shuffle_buffer` reads few groups at a time. The split of a file is a word of its name or the
name of its folder.
"""

import json
import logging
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any, final

from understudy.config.extras import installation
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources import _sharded, _shards
from understudy.data.sources._numbered import LABEL_COLUMNS
from understudy.data.sources._sharded import Format, Label, Sample
from understudy.data.sources._shards import Shard
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

SPLITS = ("train", "validation", "test")
_IMAGES = ("image", "img", "jpg", "png", "webp")
"""Columns that are read as images, the one to be taken first."""
_HELD = 2**29
"""Bytes of row groups that a process keeps."""


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, in the order of the files' names.

    Raises:
        NoSplit: No file is of this split.
        DataError: The package `pyarrow` is missing; there are no files, one is damaged, or has no
            column of images.
    """
    return _sharded.load(Format(".parquet", _index, _read, _names), root, split, unreadable)


@final
@dataclass
class _Opened:
    """A parquet file as this process reads it.

    Attributes:
        key: Its place, and what changes with its content.
        file: The file.
        image: Its column of images.
        label: Its column of labels; empty without one.
        names: Class names that the file tells.
        starts: First row of each row group, and the number of rows.
    """

    key: tuple[str, int]
    file: Any
    image: str
    label: str
    names: list[str]
    starts: list[int]


@dataclass
class _Held:
    """Row groups that this process keeps, the last read one last."""

    files: dict[tuple[str, int], _Opened] = field(default_factory=dict)
    groups: OrderedDict[tuple[str, int, int], Any] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=RLock)

    def forget(self) -> None:
        """Hold nothing any more: a fork must not use the open files of its parent, nor its lock."""
        self.files, self.groups, self.lock = {}, OrderedDict(), RLock()


_HERE = _Held()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HERE.forget)


def _open(place: str) -> _Opened:
    """Open a file and find its columns; an open one is not opened again."""
    key = place, 0 if _shards.is_address(place) else _changed(place)
    with _HERE.lock:
        if key not in _HERE.files:
            _HERE.files[key] = _opened(key)
        return _HERE.files[key]


def _opened(key: tuple[str, int]) -> _Opened:
    """Open a file and find its columns."""
    place, address = key[0], _shards.is_address(key[0])
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(
            f"The source 'parquet' needs the package 'pyarrow': {installation('hf')}."
        ) from error
    try:
        file = pq.ParquetFile(_shards.file_system(place).open(place) if address else place)
        schema = file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{place} cannot be read as a parquet file ({error}): it is damaged or not copied "
            "completely."
        ) from error
    features = _features(schema.metadata or {})
    starts = [0]
    for i in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(i).num_rows)
    label = _label(schema, features)
    names = features.get(label, {}).get("names") or []
    return _Opened(key, file, _image(schema, features, place), label, names, starts)


def _changed(place: str) -> int:
    """Return when a file was changed: what is open of another one must not be read."""
    try:
        return Path(place).stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return Hugging Face's description of the columns; empty in other files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: x for name, x in features.items() if isinstance(x, dict)}


def _image(schema: Any, features: Mapping[str, dict[str, Any]], place: str) -> str:
    typed = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    named = [name for name in _IMAGES if name in schema.names and _holds_bytes(schema, name)]
    if not (columns := typed or named):
        raise DataError(f"{place} has no column of images; it has: {', '.join(schema.names)}.")
    return columns[0]


def _holds_bytes(schema: Any, name: str) -> bool:
    return "binary" in str(schema.field(name).type)


def _label(schema: Any, features: Mapping[str, dict[str, Any]]) -> str:
    typed = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    named = [name for name in LABEL_COLUMNS if name in schema.names]
    if len(typed or named) > 1:
        _warn(
            f"There are several columns of labels, {', '.join(typed or named)}: "
            f"{(typed or named)[0]!r} is read."
        )
    return next(iter(typed or named), "")


def _names(shard: Shard) -> list[str]:
    """Return the class names that a file tells."""
    return _open(shard.place).names


def _index(shard: Shard) -> Iterator[Sample]:
    """Yield the rows of a file; only its labels are read."""
    opened = _open(shard.place)
    for group, first in enumerate(opened.starts[:-1]):
        rows = range(first, opened.starts[group + 1])
        labels: list[Label] = [None] * len(rows)
        if opened.label:
            table = opened.file.read_row_group(group, columns=[opened.label], use_threads=False)
            labels = [_checked(x, shard) for x in table.column(opened.label).to_pylist()]
        for row, label in zip(rows, labels, strict=True):
            yield Sample(f"row {row}", row, 0, label, group)


def _checked(label: object, shard: Shard) -> Label:
    if label is None or isinstance(label, str):
        return label or None
    if not isinstance(label, int) or isinstance(label, bool):
        raise DataError(f"{shard.place} has the label {label!r}, which is no class.")
    return None if label == -1 else label


def _read(place: str, start: int, size: int) -> bytes:
    """Return the encoded image of a row; `size` is not needed."""
    opened = _open(place)
    group = bisect_right(opened.starts, start) - 1
    image = _group(place, opened, group)[start - opened.starts[group]].as_py()
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        name = f" but names {image['path']!r}" if isinstance(image, dict) else ""
        raise DataError(
            f"{place}: row {start} holds no image{name}; data with files beside the rows are read "
            "by the source 'hf'."
        )
    return content


def _group(place: str, opened: _Opened, group: int) -> Any:
    """Return the images of a row group, read or from among those that are kept."""
    import pyarrow as pa

    held, key = _HERE, (*opened.key, group)
    with held.lock:
        if key not in held.groups:
            try:
                table = opened.file.read_row_group(group, columns=[opened.image], use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{place}, row group {group} cannot be read: {error}") from error
            held.groups[key] = table.column(0).combine_chunks()
        held.groups.move_to_end(key)
        while len(held.groups) > 1 and sum(x.nbytes for x in held.groups.values()) > _HELD:
            held.groups.popitem(last=False)
        return held.groups[key]


@cache
def _warn(sentence: str) -> None:
    """Warn once, not for every file."""
    LOGGER.warning(sentence)
