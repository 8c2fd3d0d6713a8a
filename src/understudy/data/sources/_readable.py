"""Find unreadable image files: each file is decoded once, and the result is stored with the data.

Unreadable files have to be known before training, since the order of an epoch depends on the number
of images. The results are stored in `.understudy-check.json` under the root, by size and times of
change of each file; in a read-only folder the check is repeated at every start. A digest of each
file's content is stored beside the result, so that images changed in place are noticed.

A picture of more than eight bits does not say which number is white. A warning tells of those of a
data set that come out dark, or that are read by several ranges.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from understudy import files
from understudy.data._image import measured
from understudy.data.source import Unreadable, content_digest
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

_RECORD = ".understudy-check.json"
VERSION = 4
"""Number of the rules by which files become pixels; another one makes checks and caches anew."""


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        kept: Indices of the readable files.
        skipped: The unreadable files, each with the reason.
        size: Side of the images if all are squares of one size, else None.
        results: Of each file height and width, or the reason why it cannot be read.
        contents: Digest of the content of each file.
    """

    kept: list[int]
    skipped: tuple[str, ...]
    size: int | None
    results: list[list[int] | str]
    contents: list[str]


def check(paths: Sequence[Path], root: Path, unreadable: Unreadable) -> Checked:
    """Decode every file that has changed since the last check.

    Raises:
        DataError: No file can be read, or some cannot and `unreadable` is `fail`.
    """
    names = [_name(path, root) for path in paths]
    record = _updated_record(names, paths, root / _RECORD)
    broken = [result for *_, result in record.values() if isinstance(result, str)]
    if broken and unreadable == "fail":
        raise DataError(
            f"{len(broken)} of {len(record)} files cannot be read, first: {broken[0]}. Repair or "
            "remove them, or leave them out with data.unreadable=skip."
        )
    if len(broken) == len(record):
        raise DataError(
            f"None of the {len(record)} image files in {root} can be read: {broken[0]}."
        )
    entries = [record[name][-1] for name in names]
    results: list[list[int] | str] = [x if isinstance(x, str) else x[:2] for x in entries]
    warn_of_depth((r[2:] for *_, r in record.values() if not isinstance(r, str)), root)
    kept = [i for i, result in enumerate(results) if not isinstance(result, str)]
    sides = {side for i in kept for side in entries[i][:2]}
    size = sides.pop() if len(sides) == 1 else None
    contents = [record[name][-2] for name in names]
    return Checked(kept, tuple(broken), size, results, contents)


def _updated_record(
    names: Sequence[str], paths: Sequence[Path], file: Path
) -> dict[str, list[Any]]:
    """Check new and changed files, update the stored record, and return that of these files.

    A record is [version, bytes, times of change of content and of status in ns, digest, result],
    where the result is [height, width, bits, largest number] (see `measured`) or the reason why the
    file cannot be read. The time of the status changes even if a program sets that of the content
    back.
    """
    stored, paths = _read(file), list(dict(zip(names, paths, strict=True)).values())
    names = list(dict.fromkeys(names))
    with ThreadPool() as pool:
        stamps = pool.map(_stamp, paths, chunksize=1024)
        changed = [i for i, name in enumerate(names) if not _is_current(stored, name, stamps[i])]
        results = pool.map(_result, [paths[i] for i in changed], chunksize=64)
    checked = {names[i]: [*stamps[i], *result] for i, result in zip(changed, results, strict=True)}
    files.remove_abandoned(file.parent, rf"{re.escape(file.name)}\.\d+")
    if checked:
        # The record is that of all splits under the root.
        _write(file, {**stored, **checked})
    return {name: checked.get(name) or stored[name] for name in names}


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:  # a link to itself or to nothing, of which `_result` says so
        return [VERSION, 0, 0, 0]
    return [VERSION, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_current(stored: Mapping[str, Any], name: str, stamp: list[int]) -> bool:
    """Return True if a file is recorded as it is now; a damaged entry is none."""
    entry = stored.get(name)
    if not isinstance(entry, list) or len(entry) != len(stamp) + 2 or entry[:-2] != stamp:
        return False
    digest, result = entry[-2:]
    return isinstance(digest, str) and (isinstance(result, str) or _is_size(result))


def _is_size(result: Any) -> bool:
    return isinstance(result, list) and len(result) == 4 and all(type(x) is int for x in result)


def _result(path: Path) -> tuple[str, list[int] | str]:
    """Return digest of the content, and sides and depth or the reason why it cannot be read."""
    content = b""
    try:
        content = path.read_bytes()
        image, depth = measured(BytesIO(content), name=str(path))
        return content_digest(content), [*image.shape[1:], *depth]
    except (DataError, OSError) as error:
        reason = str(error) if isinstance(error, DataError) else f"{path}: {error.strerror}"
        return content_digest(content), reason


def warn_of_depth(depths: Iterable[Sequence[int]], root: object) -> None:
    """Warn of a data set whose pictures of many bits come out dark, or by several ranges.

    Args:
        depths: Bits and largest number of every picture, as `measured` returns them.
        root: Where the pictures are, for the warning.
    """
    deep = [(bits, largest) for bits, largest in depths if bits]
    counts, largest = Counter(bits for bits, _ in deep), max((x for _, x in deep), default=0)
    which = f"{len(deep):,} of the pictures in {root} have more than 8 bits"
    if len(counts) > 1:
        ranges = ", ".join(f"{count} as {bits} bits" for bits, count in sorted(counts.items()))
        _warn(
            f"{which} and are read by the largest number of each, {ranges}, so that equal numbers "
            "are not equally bright. Save all with 8 bits, by one white."
        )
    elif 8 < (bits := max(counts, default=0)) > largest.bit_length():
        white = 2 ** largest.bit_length() - 1
        _warn(
            f"{which}, but none holds a number above {largest}: they are read as {bits} bits, in "
            f"which this is {largest / (2**bits - 1):.0%} of white. If {white} is white, save them "
            f"with 8 bits, each number × 255 / {white}."
        )


@cache
def _warn(sentence: str) -> None:
    """Warn once, not for every seed and method."""
    LOGGER.warning(sentence)


def _name(path: Path, root: Path) -> str:
    # For tens of thousands of files, Path.relative_to takes seconds.
    return str(path).removeprefix(f"{root}{os.sep}").replace(os.sep, "/")


def _read(file: Path) -> dict[str, list[Any]]:
    # A missing or damaged record only costs a new check.
    with suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _write(file: Path, content: Mapping[str, list[Any]]) -> None:
    # Renamed into place: other processes may read the record at the same time.
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        partial.write_text(files.as_json(content), encoding="utf-8")
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink()
