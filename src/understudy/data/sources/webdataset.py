"""Images in tar files, as WebDataset writes them: `000.jpg` and `000.cls` are a sample.

Shards are a folder, a pattern such as `data/train-{000..099}.tar`, several of these with commas, a
`.txt` file that lists them, or addresses (`s3://`, `https://`) where fsspec is installed. Files one
after the other that share a name up to its first dot are a sample: its image (`.jpg`, `.png`,
`.webp`, …) and its label, a class number or name in `.cls`, or in `.json` under `label`, `cls`,
`class` or `target`. Images without a label are unlabelled. An index of the shards is made once, in
the user's cache, so that images are read in any order and a run continues in the middle of a shard.
`data.shuffle_buffer` keeps reading within few shards at a time. The split of a shard is a word of
its name or the name of its folder: `train-000.tar`, `test/000.tar`.
"""

import json
import logging
import re
import tarfile
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO

from understudy.data._image import SUFFIXES
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources import _sharded, _shards
from understudy.data.sources._sharded import Format, Label, Sample
from understudy.data.sources._shards import Shard
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

SPLITS = ("train", "validation", "test")
_LABELS = ("label", "cls", "class", "target")
"""Keys of a `.json` that are read as labels, the one to be taken first."""


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, in the order of the shards' names.

    Raises:
        NoSplit: No shard is of this split.
        DataError: There are no shards, one is damaged or compressed, or a label has no meaning.
    """
    return _sharded.load(Format(".tar", _index, _shards.read), root, split, unreadable)


def _index(shard: Shard) -> Iterator[Sample]:
    """Yield the images of a tar file, in their order."""
    with _shards.opened(shard.place) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = [member for member in tar if member.isreg()]
        except tarfile.TarError as error:
            raise DataError(
                f"{shard.place} cannot be read as a tar file ({error}): it is compressed, damaged "
                "or not copied completely. Unpack it by gunzip, or copy it again."
            ) from error
        for key, parts in groupby(members, lambda member: _key_and_end(member.name)[0]):
            ends = {_key_and_end(member.name)[1]: member for member in parts}
            image = _image(ends, shard.place)
            if image is not None:
                end = ends[image]
                label = _label(file, ends, f"{shard.place}: {key}")
                yield Sample(f"{key}.{image}", end.offset_data, end.size, label)


def _key_and_end(name: str) -> tuple[str, str]:
    """Return the key of a file, its path up to the first dot of its name, and what follows."""
    path = PurePosixPath(name)
    stem, _, end = path.name.partition(".")
    return str(path.parent / stem), end.lower()


def _image(ends: dict[str, tarfile.TarInfo], place: str) -> str | None:
    """Return which of the files of a sample is its image."""
    images = [end for end in ends if f".{end.rpartition('.')[2]}" in SUFFIXES]
    plain = [end for end in images if "." not in end]
    if len(plain or images) > 1:
        _warn(f"Samples of {place} hold several images ({', '.join(images)}): the first is read.")
    return next(iter(plain or images), None)


def _label(file: IO[bytes], ends: dict[str, tarfile.TarInfo], name: str) -> Label:
    if "cls" in ends:
        return _as_label(_text(file, ends["cls"]).strip(), name)
    if "json" not in ends:
        return None
    try:
        content = json.loads(_text(file, ends["json"]))
    except ValueError as error:
        raise DataError(f"{name}.json is no JSON ({error}): repair it.") from error
    known = [key for key in _LABELS if isinstance(content, dict) and content.get(key) is not None]
    return _as_label(content[known[0]], name) if known else None


def _text(file: IO[bytes], member: tarfile.TarInfo) -> str:
    file.seek(member.offset_data)
    return file.read(member.size).decode("utf-8", "replace")


def _as_label(value: object, name: str) -> int | str:
    """Return a label as a class number if it is one, else as a class name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value:
        raise DataError(f"{name} has the label {value!r}, which is no class number and no name.")
    return int(value) if re.fullmatch(r"-?\d+", value) else value


@cache
def _warn(sentence: str) -> None:
    """Warn once of each shard."""
    LOGGER.warning(sentence)
