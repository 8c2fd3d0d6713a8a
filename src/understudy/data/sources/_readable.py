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
    names = [_name(path, root) for path in paths]
    found = _results(names, paths, root / _RECORD)
    broken = [result for *_, result in found.values() if isinstance(result, str)]
    if broken and unreadable == "fail":
        raise DataError(
            f"{len(broken)} of {len(paths)} files cannot be read, first: {broken[0]}. Repair or "
            "remove them, or leave them out with data.unreadable=skip."
        )
    if len(broken) == len(paths):
        raise DataError(f"None of the {len(paths)} image files in {root} can be read: {broken[0]}.")
    results = [found[name][-1] for name in names]
    kept = [i for i, result in enumerate(results) if not isinstance(result, str)]
    sides = {side for i in kept for side in results[i]}
    size = sides.pop() if len(sides) == 1 else None
    return Checked(kept, tuple(broken), size, found)


def _results(names: Sequence[str], paths: Sequence[Path], record: Path) -> dict[str, list[Any]]:
    """Name → [bytes, time of change in ns, [height, width] or the reason why it cannot be read]."""
    known = _read(record)
    with ThreadPool() as pool:
        status = pool.map(os.stat, paths, chunksize=1024)
        stamps = [[found.st_size, found.st_mtime_ns] for found in status]
        new = [i for i, name in enumerate(names) if known.get(name, [])[:2] != stamps[i]]
        results = pool.map(_result, [paths[i] for i in new], chunksize=64)
    checked = {names[i]: [*stamps[i], result] for i, result in zip(new, results, strict=True)}
    if checked:
        _write(record, {**known, **checked})
    return {name: checked.get(name) or known[name] for name in names}


def _result(path: Path) -> list[int] | str:
    """Height and width of an image, or why it cannot be read."""
    try:
        return list(decode(path).shape[1:])
    except DataError as error:
        return str(error)


def _name(path: Path, root: Path) -> str:
    # For tens of thousands of files, pathlib's own way takes seconds.
    return str(path).removeprefix(f"{root}{os.sep}").replace(os.sep, "/")


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
