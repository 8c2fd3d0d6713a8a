"""Tables of images with several classes each: a column for every class, or names in one column."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from understudy.batch import UNLABELLED
from understudy.data.source import Source
from understudy.data.sources._files import from_files
from understudy.data.sources._splits import TEST_NAMES, no_test_split
from understudy.errors import DataError

Values = Mapping[str | None, Any]
"""Column → what a row has there; None where there is none."""

_OWN = ("split", "file_name")
_KNOWN = {"1": 1, "0": 0, "": UNLABELLED}
_SEPARATORS = re.compile(r"[;|]")


def several(labels: Sequence[str]) -> bool:
    """Whether any label is a list of names."""
    return any(_SEPARATORS.search(label) for label in labels)


def presence(labels: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """All names, sorted, and of every label a row of 1 (in the list), 0 and -1 (empty label).

    Names that are all numbers are classes 0, 1, … to the largest.
    """
    lists = [
        {name for part in _SEPARATORS.split(each) if (name := part.strip())} for each in labels
    ]
    names = sorted(set().union(*lists))
    if names and all(name.isdecimal() for name in names):
        lists = [{str(int(name)) for name in each} for each in lists]
        names = [str(number) for number in range(max(map(int, names)) + 1)]
    return names, [
        [int(name in found) if label else UNLABELLED for name in names]
        for label, found in zip(labels, lists, strict=True)
    ]


def load(
    table: Path,
    columns: Sequence[str],
    rows: Sequence[tuple[int, Values]],
    split: Literal["train", "test"],
    *,
    unreadable: Literal["skip", "fail"],
) -> Source:
    """The images of one split of a table with a column for every class, in its order.

    Args:
        table: The file.
        columns: Their names, in order.
        rows: Line and values of each row.
        split: What to take; a year behind its name, as in `train2017`, does not count.
        unreadable: What to do with a file that is no image.

    Raises:
        DataError: A value makes no sense, or a file is missing or named twice; it names the line.
    """
    classes = [name for name in columns if name not in _OWN]
    if not classes or len(set(classes)) < len(classes):
        raise DataError(f"{table}, line 1: each class needs one column beside 'file_name'.")
    given = [_Row(table, line, values) for line, values in rows]
    present = {row.split for row in given}
    wanted = next((n for n in _names(split) if n in present), None)
    if wanted is None:
        lacking = DataError(f"{table} lists no images of the split 'train'.")
        raise no_test_split(str(table)) if split == "test" else lacking
    chosen = [row for row in given if row.split == wanted]
    labels = torch.tensor([row.labels(classes) for row in chosen])
    paths = list(_found(table, chosen))
    return from_files(paths, labels, classes, root=table.parent, unreadable=unreadable)


def _names(split: Literal["train", "test"]) -> Sequence[str]:
    return TEST_NAMES if split == "test" else ("train",)


@dataclass(frozen=True)
class _Row:
    """One row; errors name its line."""

    table: Path
    line: int
    values: Values

    @cached_property
    def split(self) -> str:
        """Name of the split without a year."""
        given = self.values.get("split") or "train"
        name = given.rstrip("0123456789")
        if name != "train" and name not in TEST_NAMES:
            raise self.error(f"the split is {given!r}; it can be: train, {', '.join(TEST_NAMES)}")
        return name

    @property
    def file(self) -> Path:
        """Name of the image."""
        name = self.values["file_name"]
        if not name:
            raise self.error("the file_name is empty")
        return Path(name)

    def labels(self, classes: Sequence[str]) -> list[int]:
        """Whether each class is there: 1, 0, or -1 where it is not known."""
        if None in self.values or None in self.values.values():
            raise self.error("there are not as many values as columns")
        given = [(self.values[name] or "").strip() for name in classes]
        for name, value in zip(classes, given, strict=True):
            if value not in _KNOWN:
                raise self.error(f"{name!r} is {value!r}; it can be 1, 0 or empty, for not known")
        return [_KNOWN[value] for value in given]

    def error(self, reason: str) -> DataError:
        """What is wrong here."""
        return DataError(f"{self.table}, line {self.line}: {reason}.")


def _found(table: Path, rows: Sequence[_Row]) -> Iterator[Path]:
    """The file of every row: at its name, in the folder of its split, or anywhere below."""
    below, seen = _below(table.parent), dict[Path, int]()
    for row in rows:
        path = _one(table.parent, row, below.get(row.file.name, []))
        if path in seen:
            raise row.error(f"{row.file} is named in line {seen[path]} already")
        seen[path] = row.line
        yield path


def _one(top: Path, row: _Row, below: Sequence[Path]) -> Path:
    """Where the file of a row is, of all places `below` with a file of its name."""
    folders = (Path(), Path(row.values.get("split") or ""), Path(row.split))
    if near := [path for folder in folders if (path := top / folder / row.file) in below]:
        return near[0]
    ends = [path for path in below if path.match(str(row.file))]
    if not ends:
        raise row.error(f"there is no file {row.file} in {top} or below")
    if len(ends) > 1:
        raise row.error(f"{row.file} can be {ends[0]} or {ends[1]}; name it by its folder")
    return ends[0]


def _below(top: Path) -> dict[str, list[Path]]:
    """Name → all files of that name in a folder and below it."""
    found: dict[str, list[Path]] = {}
    for folder, _, names in os.walk(top):
        for name in names:
            found.setdefault(name, []).append(Path(folder, name))
    return found
