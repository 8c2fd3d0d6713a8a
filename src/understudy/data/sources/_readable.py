"""Find unreadable image files: each file is decoded once, and the result is stored with the data.

Unreadable files have to be known before training, since the order of an epoch depends on the number
of images. The results are stored in `.understudy-check.json` under the root, by size and time of
change of each file; in a read-only folder the check is repeated at every start.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from understudy.data._image import decode
from understudy.data.source import Unreadable
from understudy.errors import DataError

_RECORD = ".understudy-check.json"


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        kept: Indices of the readable files.
        skipped: The unreadable files, each with the reason.
        size: Side of the images if all are squares of one size, else None.
        record: Name → [bytes, time of change in ns, result] of every file, where the result is
            [height, width] or the reason why it cannot be read.
    """

    kept: list[int]
    skipped: tuple[str, ...]
    size: int | None
    record: Mapping[str, list[Any]]


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
            f"{len(broken)} of {len(paths)} files cannot be read, first: {broken[0]}. Repair or "
            "remove them, or leave them out with data.unreadable=skip."
        )
    if len(broken) == len(paths):
        raise DataError(f"None of the {len(paths)} image files in {root} can be read: {broken[0]}.")
    results = [record[name][-1] for name in names]
    kept = [i for i, result in enumerate(results) if not isinstance(result, str)]
    sides = {side for i in kept for side in results[i]}
    size = sides.pop() if len(sides) == 1 else None
    return Checked(kept, tuple(broken), size, record)


def _updated_record(
    names: Sequence[str], paths: Sequence[Path], file: Path
) -> dict[str, list[Any]]:
    """Check new and changed files, update the stored record, and return that of these files."""
    stored = _read(file)
    with ThreadPool() as pool:
        status = pool.map(os.stat, paths, chunksize=1024)
        stamps = [[entry.st_size, entry.st_mtime_ns] for entry in status]
        changed = [i for i, name in enumerate(names) if stored.get(name, [])[:2] != stamps[i]]
        results = pool.map(_result, [paths[i] for i in changed], chunksize=64)
    checked = {names[i]: [*stamps[i], result] for i, result in zip(changed, results, strict=True)}
    if checked:
        # The record is that of all splits under the root.
        _write(file, {**stored, **checked})
    return {name: checked.get(name) or stored[name] for name in names}


def _result(path: Path) -> list[int] | str:
    """Return height and width of an image, or the reason why it cannot be read."""
    try:
        return list(decode(path).shape[1:])
    except DataError as error:
        return str(error)


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
    with suppress(OSError):
        # Renamed into place: other processes may read the record at the same time.
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(file)
