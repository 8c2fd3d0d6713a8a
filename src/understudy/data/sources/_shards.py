"""Shards of a data set: files that hold many images each, on this machine or at an address.

They are named by a folder, a pattern with `*` or `{000..099}`, several of these with commas between
them, or a `.txt` file with one in each line. The split of a shard is a word of its name, or the
name of its folder (`train-000.tar`, `test/000.tar`); without any, all are training images.
Addresses such as `s3://bucket/train-{000..099}.tar` are read through fsspec.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from io import BufferedIOBase
from itertools import product
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from understudy.data.source import Split
from understudy.data.sources._splits import SPLIT_NAMES, choose
from understudy.errors import DataError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000
"""Most names that braces stand for."""


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
        place: Its path or address.
        size: Its size in bytes.
        stamp: What else changes with its content, such as its time of change.
    """

    place: str
    size: int
    stamp: str

    @property
    def name(self) -> str:
        """Its name without folders."""
        return PurePosixPath(self.place).name


def of_splits(root: str, suffix: str) -> dict[Split, list[Shard]]:
    """Return the shards of every split that there is, sorted by place.

    Raises:
        DataError: There are no shards, or their place cannot be read.
    """
    by_name = _by_split(_places(root, suffix), root)
    splits: list[Split] = ["train", "validation", "test"]
    names = {split: choose(split, by_name) for split in splits}
    return {
        split: [_described(place) for place in by_name[name]]
        for split, name in names.items()
        if name is not None
    }


def read(place: str, start: int, size: int) -> bytes:
    """Return some bytes of a shard.

    Raises:
        DataError: They cannot be read.
    """
    try:
        if is_address(place):
            return cast(bytes, file_system(place).cat_file(place, start=start, end=start + size))
        with Path(place).open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror or error}") from error


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """Open a shard to read it from its beginning, here and there.

    Raises:
        DataError: It cannot be opened.
    """
    try:
        file = file_system(place).open(place, "rb") if is_address(place) else open(place, "rb")  # noqa: PTH123, SIM115
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror or error}") from error
    with file:
        yield cast("IO[bytes]", cast(BufferedIOBase, file))


def is_address(place: str) -> bool:
    """Return True for `s3://…` and the like."""
    return bool(_ADDRESS.match(place))


def file_system(place: str) -> Any:
    """Return the file system of an address; fsspec keeps one for each process."""
    scheme = place.split("://")[0]
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(
            f"{place} is an address, for which the package fsspec is needed: pip install "
            f"'fsspec[{scheme}]', or copy the shards to this machine."
        ) from error
    try:
        return fsspec.core.url_to_fs(place)[0]
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{place} cannot be reached ({error}): pip install 'fsspec[{scheme}]', or copy the "
            "shards to this machine."
        ) from error


def _places(root: str, suffix: str) -> list[str]:
    """Return the paths and addresses of all shards, sorted."""
    if not root:
        raise DataError(f"This source needs shards; set data.root to a folder of {suffix} files.")
    patterns = [name for part in _parts(root) for name in _expanded(part)]
    places = sorted({place for pattern in patterns for place in _matching(pattern, suffix)})
    if not places:
        raise DataError(
            f"There is no {suffix} file in {root!r}; set data.root to their folder, to a pattern "
            f"such as data/train-{{000..099}}{suffix}, or to a .txt file that lists them."
        )
    return places


def _parts(root: str) -> list[str]:
    """Return the folders, patterns and files that `data.root` names."""
    if root.endswith(".txt") and not is_address(root):
        if not Path(root).is_file():
            raise DataError(f"There is no file {root!r}; set data.root to a list of shards.")
        lines = [line.strip() for line in Path(root).read_text(encoding="utf-8").splitlines()]
        top = Path(root).parent
        return [x if is_address(x) else str(top / x) for x in lines if x and x[0] != "#"]
    depth, parts = 0, [""]
    for sign in root:
        depth += (sign == "{") - (sign == "}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _expanded(pattern: str) -> list[str]:
    """Return the names that the braces of a pattern stand for."""
    pieces = _BRACES.split(pattern)
    choices = [[text] if i % 2 == 0 else _choices(text) for i, text in enumerate(pieces)]
    if math.prod(map(len, choices)) > _MOST:
        raise DataError(f"{pattern} stands for more shards than the {_MOST:,} that can be named.")
    return ["".join(names) for names in product(*choices)]


def _choices(text: str) -> list[str]:
    if (bounds := _RANGE.fullmatch(text)) is None:
        return text.split(",")
    first, last = bounds.groups()
    # One more than can be named, for the error: the rest is not worth its memory.
    numbers = range(int(first), int(last) + 1)[: _MOST + 1]
    return [f"{i:0{len(first)}d}" for i in numbers]


def _matching(pattern: str, suffix: str) -> Sequence[str]:
    """Return the shards that a path, a folder or a pattern with `*` names."""
    if is_address(pattern):
        return _remote(pattern, suffix)
    if Path(pattern).is_dir():
        return [str(path) for path in Path(pattern).rglob(f"*{suffix}") if _is_shown(path, pattern)]
    if has_magic(pattern):
        return glob(pattern, recursive=True)  # noqa: PTH207 - pathlib's is of one folder
    if not Path(pattern).is_file():
        raise DataError(f"There is no shard {pattern!r}; set data.root to those that there are.")
    return [pattern]


def _is_shown(path: Path, top: str) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(top).parts)


def _remote(pattern: str, suffix: str) -> Sequence[str]:
    if not has_magic(pattern) and pattern.endswith(suffix):
        return [pattern]
    system = file_system(pattern)
    try:
        deep = pattern if has_magic(pattern) else f"{pattern.rstrip('/')}/**"
        return [system.unstrip_protocol(x) for x in system.glob(deep) if x.endswith(suffix)]
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"The shards of {pattern} cannot be listed ({error}): name them by a pattern such as "
            f"train-{{000..099}}{suffix}, which needs no list."
        ) from error


def _by_split(places: Sequence[str], root: str) -> dict[str, list[str]]:
    """Return the shards of each split, by the word in their names, or else in their folders."""
    words = {name for names in SPLIT_NAMES.values() for name in names}
    by_name = dict[str, list[str]]()
    others = list[str]()
    for place in places:
        path = PurePosixPath(Path(place).as_posix())
        tokens = [*re.split(r"[^a-z]+", path.stem.lower()), path.parent.name.lower()]
        name = next((token for token in tokens if token in words), None)
        (others if name is None else by_name.setdefault(name, [])).append(place)
    if not by_name:
        return {"train": others}
    if others:
        raise DataError(
            f"{len(others)} shards of {root} tell no split ({others[0]}), but others do "
            f"({next(iter(by_name.values()))[0]}): put a word such as train or test into each name."
        )
    return by_name


def _described(place: str) -> Shard:
    """Return a shard with its size and stamp."""
    try:
        if not is_address(place):
            status = Path(place).stat()
            return Shard(place, status.st_size, str(status.st_mtime_ns))
        info = file_system(place).info(place)
    except OSError as error:
        raise DataError(f"There is no shard {place}: {error.strerror or error}.") from error
    known = [info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "updated")]
    return Shard(place, int(info.get("size") or 0), str(next(filter(None, known), "")))
