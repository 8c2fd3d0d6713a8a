"""Very many image files in folders, or in a table: listed once, no file opened before training.

A split of very many files (`_undecoded.LISTED`) is not decoded beforehand, unless its images are
small enough to be kept in memory. Its list is a file of columns in the user's cache: names,
classes, sizes and times of change. One process makes it, the others wait. It is made anew when a
folder has been written to since, or one of a sample of its files has changed.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from understudy.data._image import SUFFIXES, decode, sides_of
from understudy.data._lazy import LazySequence
from understudy.data.replaced import LazySource
from understudy.data.source import Source, Unreadable, short_digest
from understudy.data.sources import _undecoded
from understudy.data.sources._cache import NOTES, cache_folder, made_once
from understudy.data.sources._columns import Columns, Packed, Texts, store
from understudy.data.sources._files import IN_MEMORY, from_files, refuse_skipped
from understudy.data.sources._listing import Listing
from understudy.data.sources._undecoded import (
    SAMPLE,
    kept_in_memory,
    replacing,
    side_of_sample,
    why_undecoded,
)
from understudy.data.subset import evenly

LOGGER = logging.getLogger("understudy")

_VERSION = 2
_AT_ONCE = 2**14
"""Files that are looked at together."""
_NAME = "files.columns"
_COARSE, _FINE = 2e9, 1e8
"""Nanoseconds within which a folder may change without another time of change."""


@final
class Files:
    """Image files of a split as they are listed, in the order of the source.

    Attributes:
        names: Their paths, relative to the top of the data set.
        skipped: Files that were left out, each with the reason.
        folders: Each folder that was read → its time of change in ns.
        links: Whether any of them is a link.
    """

    def __init__(self, top: Path) -> None:
        self._prefix = str(top / "x")[:-1]
        self.top, self.names, self.links = top, Packed(), False
        self.skipped, self.folders, self._runs = list[str](), dict[str, int](), [(0, 0)]
        self._labels: np.ndarray[Any, np.dtype[np.int64]] | None = None

    @classmethod
    def of_table(
        cls, top: Path, paths: Iterable[Path], labels: Int64[Tensor, "images ..."]
    ) -> "Files":
        """Return the files of a table, with the labels of each, in its order."""
        files = cls(top)
        files.names.extend(str(path).removeprefix(files._prefix) for path in paths)
        files._labels = labels.numpy()
        return files

    def __len__(self) -> int:
        return len(self.names)

    def add(self, listing: Listing, label: int) -> None:
        """Append the files of a listing, all of one label."""
        start = len(self._prefix)
        self.names.extend(name[start:].removeprefix(f".{os.sep}") for name in listing.names)
        self._runs.append((label, len(listing.names)))
        self.note(listing)

    def note(self, listing: Listing) -> None:
        """Take what a listing tells beside the files."""
        self.skipped += listing.skipped
        self.folders |= listing.folders
        self.links = self.links or listing.links

    @property
    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The label of each file, or the presence of each class in it."""
        if self._labels is not None:
            return self._labels
        labels, counts = zip(*self._runs, strict=True)
        return np.repeat(np.array(labels, np.int64), counts)

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.top / name for name in self.names]

    def sides_of(self, i: int) -> tuple[int, int]:
        """Return height and width of image `i`, read from its header."""
        return sides_of(self.top / self.names[i])


@final
class _Paths(LazySequence[Path]):
    """Files by their names in a folder."""

    def __init__(self, top: Path, names: Texts) -> None:
        self._top, self._names = top, names

    def __len__(self) -> int:
        return len(self._names)

    def _entry(self, i: int) -> Path:
        return self._top / self._names[i]


@final
class ListedSource(LazySource):
    """Image files by a list of columns; nothing is known of their content."""

    def __init__(self, columns: Columns, top: Path, classes: Sequence[str]) -> None:
        self._columns = columns
        self.labels = torch.from_numpy(columns["label"]).view(-1, *columns.header["present"])
        self.paths = _Paths(top, columns.texts("name"))
        self.top = "" if columns.header["links"] else columns.header["real"]
        self.classes, self.size = tuple(classes), columns.header["side"]
        self.skipped = tuple(columns.header["skipped"])

    def image(self, i: int) -> UInt8[Tensor, "3 height width"]:
        """Decode image `i`; `DataError` if its file cannot be read."""
        return decode(self.paths[i])

    def sides_of(self, i: int) -> tuple[int, int]:
        """Return height and width of image `i`, read from its header."""
        return sides_of(self.paths[i])

    def name(self, i: int) -> str:
        """Return the path of file `i`."""
        return str(self.paths[i])

    @cached_property
    def images_digest(self) -> str:
        """Sixteen hex digits of names and sizes in bytes; the files are not read."""
        columns, digest = self._columns, sha256(f"files {len(self)}\n".encode())
        names = columns["name"]
        for start in range(0, len(names), 2**20):
            # Every system writes the separator of folders in its own way.
            digest.update(names[start : start + 2**20].tobytes().replace(os.sep.encode(), b"/"))
        digest.update(columns["name.ends"].tobytes())
        digest.update(columns["bytes"].tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Place:
    """Where the files of a split are, and where their list is kept.

    Attributes:
        name: What lists them, for messages: their folder, or a table.
        folder: Folder that holds them.
        top: Folder to which their names are relative.
        cache: Folder of the list, in the user's cache.
    """

    name: str
    folder: Path
    top: Path
    cache: Path

    @property
    def is_listed(self) -> bool:
        """True if there is a list, which may be outdated."""
        return (self.cache / _NAME).is_file()


def listed(
    folder: Path,
    top: Path,
    classes: Sequence[str],
    unreadable: Unreadable,
    list_files: Callable[[], Files],
) -> Source | Files:
    """Return the source of a split of very many files, or the files if they are to be decoded.

    Args:
        folder: Folder of the split.
        top: Folder of the data set.
        classes: Class names in the order of the labels.
        unreadable: What to do with files that cannot be decoded.
        list_files: Lists the files; not called where a stored list still holds.

    Raises:
        DataError: None of a sample of the files can be read, or some were left out and
            `unreadable` is `fail`.
    """
    place = _Place(str(folder), folder, top, _cache_of(folder, top, classes))
    if not place.is_listed and not _more_than(_undecoded.LISTED, folder):
        return list_files()
    return _source_or_files(place, classes, unreadable, list_files)


def of_table(
    file: Path,
    paths: Sequence[Path],
    labels: Int64[Tensor, "images ..."],
    classes: Sequence[str],
    unreadable: Unreadable,
) -> Source:
    """Return the source of the files in a table: decoded beforehand unless they are very many.

    Args:
        file: The table.
        paths: Files of one split of it.
        labels: Their labels, or the presence of each class.
        classes: Class names in the order of the labels.
        unreadable: What to do with files that cannot be decoded.

    Raises:
        DataError: No file, or none of a sample of very many, can be read; or some of few cannot,
            and `unreadable` is `fail`.
    """
    if len(paths) > _undecoded.LISTED:
        files = Files.of_table(file.parent, paths, labels)
        # Named by names and labels: of other rows it is another list.
        content = [x.tobytes() for x in (*files.names.columns("").values(), files.labels)]
        digest = sha256(b"\0".join(content)).hexdigest()
        cache = cache_folder() / "tables" / short_digest(os.path.realpath(file), digest)
        place = _Place(str(file), file.parent, file.parent, cache)
        source = _source_or_files(place, classes, unreadable, lambda: files)
        if isinstance(source, Source):
            return source
    return from_files(paths, labels, classes, root=file.parent, unreadable=unreadable)


def _source_or_files(
    place: _Place,
    classes: Sequence[str],
    unreadable: Unreadable,
    list_files: Callable[[], Files],
) -> Source | Files:
    """Return the source of listed files, or the files if they are to be decoded."""
    files, existed = list[Files](), place.is_listed

    def make(file: Path) -> bool:
        files.append(list_files())
        count = len(files[0])
        if count <= _undecoded.LISTED:
            return False
        side = side_of_sample(count, files[0].sides_of, "files")
        if kept_in_memory(count, side):
            return False
        _store(file, files[0], place.folder, side)
        return True

    columns = made_once(place.cache, _NAME, is_current, make)
    if columns is None:
        return files[0]
    if files:
        _say(columns, place.name, existed)
    source = ListedSource(columns, place.top, classes)
    refuse_skipped(source.skipped, unreadable)
    return replacing(source, columns.file.parent, unreadable)


def _more_than(count: int, folder: Path) -> bool:
    """Return True if a folder, and those below it, hold more image files, without listing all."""
    names = (name for _, _, files in os.walk(folder, followlinks=True) for name in files)
    images = (name for name in names if name.lower().endswith(tuple(SUFFIXES)))
    return sum(1 for _ in islice(images, count + 1)) > count


def is_current(columns: Columns) -> bool:
    """Return True if no folder, and none of a sample of the files, has changed since."""
    header = columns.header
    if header["rules"] != _rules():
        return False
    names, times = columns.texts("folder"), columns["folder.time"].tolist()
    if any(os.stat(name).st_mtime_ns != t for name, t in zip(names, times, strict=True)):  # noqa: PTH116
        return False
    files, top = columns.texts("name"), Path(header["top"])
    for i in evenly(len(files), SAMPLE).tolist():
        status = (top / files[i]).stat()
        if (status.st_size, status.st_mtime_ns) != (columns["bytes"][i], columns["time"][i]):
            return False
    return True


def _cache_of(folder: Path, top: Path, classes: Sequence[str]) -> Path:
    """Return the folder of the list of a split, in the user's cache."""
    key = short_digest(os.path.realpath(folder), os.path.abspath(top), list(classes))  # noqa: PTH100
    return cache_folder() / "folders" / key


def _store(file: Path, files: Files, folder: Path, side: int | None) -> None:
    """Write the columns of a list."""
    file.with_name(NOTES).unlink(missing_ok=True)
    sizes, times = _stamps(files)
    folders = Packed()
    folders.extend(os.path.abspath(name) for name in files.folders)  # noqa: PTH100
    header = {
        "rules": _rules(),
        "top": os.path.abspath(files.top),  # noqa: PTH100
        "real": os.path.realpath(folder),
        "side": side,
        "present": files.labels.shape[1:],
        "links": files.links,
        "skipped": files.skipped,
    }
    columns = {
        **files.names.columns("name"),
        "label": files.labels.reshape(-1),
        "bytes": sizes,
        "time": times,
        **folders.columns("folder"),
        "folder.time": np.array([_settled(t) for t in files.folders.values()], np.int64),
    }
    store(file, header, columns)


def _rules() -> list[int]:
    """Return by which rules a list is made: one made by others does not hold."""
    return [_VERSION, _undecoded.LISTED, IN_MEMORY]


def _stamps(files: Files) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return size and time of change of every file; 0 and 0 if it is gone meanwhile."""
    sizes, times = np.zeros((2, len(files)), np.int64)
    prefix = str(files.top / "x")[:-1]

    def stamp(entry: tuple[int, str]) -> None:
        try:
            status = os.stat(prefix + entry[1])  # noqa: PTH116 (of a million files)
        except OSError:
            return
        sizes[entry[0]], times[entry[0]] = status.st_size, status.st_mtime_ns

    # Threads for folders of a network, where every answer takes its time. A part of the names at
    # a time: a pool takes all it is given into memory.
    entries = enumerate(files.names)
    with ThreadPool(8) as pool:
        while part := list(islice(entries, _AT_ONCE)):
            pool.map(stamp, part, chunksize=512)
    return sizes, times


def _settled(changed: int) -> int:
    """Return a time of change, or -1 if a later change might have the same one."""
    window = _FINE if changed % 10**9 else _COARSE
    return changed if time.time_ns() - changed > window else -1


def _say(columns: Columns, name: str, existed: bool) -> None:
    again = "The files in it have changed since they were listed: " if existed else ""
    # Of the labels, a table of several classes has one for each class of an image.
    count = len(columns.texts("name"))
    LOGGER.info(
        f"{name}: {again}{count:,} image files are listed in {columns.file} and not opened before "
        f"training, {why_undecoded()}"
    )
