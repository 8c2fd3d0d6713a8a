"""Which image files can be read: every file is decoded once, and remembered beside the data.

What is skipped has to be known before training, or the order of an epoch would depend on it. The
result is kept in `.understudy-check.json` under the root, by size and time of change of each file;
in a folder that cannot be written the check is simply made again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

from understudy.data._image import decode
from understudy.errors import DataError

_RECORD = ".understudy-check.json"


@dataclass(frozen=True)
class Checked:
    """What the check found.

    Attributes:
        kept: Positions of the readable files.
        skipped: The other files, each with the reason.
        size: Side of the images if all are squares of one size, else None.
        record: Name → [bytes, time of change, result] of every file; any change of a file shows.
    """

    kept: list[int]
    skipped: tuple[str, ...]
    size: int | None
    record: Mapping[str, list[Any]]


def check(paths: Sequence[Path], root: Path, unreadable: Literal["skip", "fail"]) -> Checked:
    """Decode every file that has changed since the last check.

    Raises:
        DataError: No file can be read, or some cannot and `unreadable` is `fail`.
    """
    found = _results(paths, root)
    broken = [result for *_, result in found.values() if isinstance(result, str)]
    if broken and unreadable == "fail":
        raise DataError(
            f"{len(broken)} of {len(paths)} files cannot be read, first: {broken[0]}. Repair or "
            "remove them, or leave them out with data.unreadable=skip."
        )
    if len(broken) == len(paths):
        raise DataError(f"None of the {len(paths)} image files in {root} can be read: {broken[0]}.")
    results = [found[_name(path, root)][-1] for path in paths]
    kept = [i for i, result in enumerate(results) if not isinstance(result, str)]
    sides = {side for i in kept for side in results[i]}
    size = sides.pop() if len(sides) == 1 else None
    return Checked(kept, tuple(broken), size, found)


def _results(paths: Sequence[Path], root: Path) -> dict[str, list[Any]]:
    """Name → [bytes, time of change in ns, [height, width] or the reason why it cannot be read]."""
    record = root / _RECORD
    known = _read(record)
    with ThreadPool() as pool:
        found = dict(pool.imap(lambda path: _result(path, root, known), paths, chunksize=64))
    if any(known.get(name) != result for name, result in found.items()):
        _write(record, {**known, **found})
    return found


def _result(path: Path, root: Path, known: Mapping[str, list[Any]]) -> tuple[str, list[Any]]:
    name, status = _name(path, root), path.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    if known.get(name, [])[:2] == stamp:
        return name, known[name]
    try:
        return name, [*stamp, list(decode(path).shape[1:])]
    except DataError as error:
        return name, [*stamp, str(error)]


def _name(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _read(record: Path) -> dict[str, list[Any]]:
    # A damaged record costs a new check, nothing else.
    with suppress(OSError, ValueError):
        content = json.loads(record.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _write(record: Path, content: Mapping[str, list[Any]]) -> None:
    with suppress(OSError):
        partial = record.with_name(f"{record.name}.{os.getpid()}")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(record)
