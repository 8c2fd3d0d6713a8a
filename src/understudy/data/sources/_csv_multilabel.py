"""CSV files of images with several classes: a column per class, or a list of names as label."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from understudy.batch import UNLABELLED
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._files import from_files
from understudy.data.sources._splits import SPLIT_NAMES, TEST_NAMES, no_test_split
from understudy.errors import DataError

Values = Mapping[str | None, Any]
"""Column → value of one row.

As `csv.DictReader` has it: None is the value of a column that the row is too short for, and the key
of the values that it has beyond the last column.
"""

_OTHER_COLUMNS = ("split", "file_name")
_PRESENCE = {"1": 1, "0": 0, "": UNLABELLED}
_SEPARATORS = re.compile(r"[;|]")


def has_lists(labels: Sequence[str]) -> bool:
    """Return True if any label is a list of names."""
    return any(_SEPARATORS.search(label) for label in labels)


def presence(labels: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Return the sorted class names, and for every label the presence of each class.

    Presence is 1 (in the list), 0, or -1 (`UNLABELLED`) for all classes of an empty label. If all
    names are numbers, the classes are 0, 1, … to the largest.
    """
    lists = [
        {name for part in _SEPARATORS.split(each) if (name := part.strip())} for each in labels
    ]
    names = sorted(set().union(*lists))
    if names and all(name.isdecimal() for name in names):
        # 03 is class 3.
        lists = [{str(int(name)) for name in each} for each in lists]
        names = [str(number) for number in range(max(map(int, names)) + 1)]
    return names, [
        [int(name in members) if label else UNLABELLED for name in names]
        for label, members in zip(labels, lists, strict=True)
    ]


def load(
    file: Path,
    columns: Sequence[str],
    rows: Sequence[tuple[int, Values]],
    split: Split,
    *,
    unreadable: Unreadable,
) -> Source:
    """Load the images of one split of a CSV file with a column per class, in the order of the file.

    Args:
        file: Path of the CSV file.
        columns: Names of the columns, in order.
        rows: Line number and values of each row.
        split: Split to load; a year after its name in the file, as in `train2017`, is ignored.
        unreadable: What to do with files that cannot be decoded.

    Raises:
        DataError: A value is invalid, or an image file is missing, ambiguous or listed twice; the
            message names the line.
    """
    classes = [name for name in columns if name not in _OTHER_COLUMNS]
    if not classes or len(set(classes)) < len(classes):
        raise DataError(f"{file}, line 1: each class needs one column beside 'file_name'.")
    all_rows = [_Row(file, line, values) for line, values in rows]
    splits = {row.split for row in all_rows}
    name = next((n for n in SPLIT_NAMES[split] if n in splits), None)
    if name is None:
        no_training = DataError(f"{file} lists no images of the split 'train'.")
        raise no_test_split(str(file)) if split == "test" else no_training
    selected = [row for row in all_rows if row.split == name]
    labels = torch.tensor([row.labels(classes) for row in selected])
    paths = list(_located(file.parent, selected))
    return from_files(paths, labels, classes, root=file.parent, unreadable=unreadable)


@dataclass(frozen=True)
class _Row:
    """One row of a CSV file; errors name its line."""

    table: Path
    line: int
    values: Values

    @cached_property
    def split(self) -> str:
        """Name of the split without a year."""
        value = self.values.get("split") or "train"
        name = value.rstrip("0123456789")
        if name != "train" and name not in TEST_NAMES:
            raise self.error(f"the split is {value!r}; it can be: train, {', '.join(TEST_NAMES)}")
        return name

    @property
    def image(self) -> Path:
        """Name of the image file, possibly with folders."""
        name = self.values["file_name"]
        if not name:
            raise self.error("the file_name is empty")
        return Path(name)

    def labels(self, classes: Sequence[str]) -> list[int]:
        """Return the presence of each class: 1, 0, or -1 (`UNLABELLED`) where it is not known."""
        if None in self.values or None in self.values.values():
            raise self.error("there are not as many values as columns")
        values = [(self.values[name] or "").strip() for name in classes]
        for name, value in zip(classes, values, strict=True):
            if value not in _PRESENCE:
                raise self.error(f"{name!r} is {value!r}; it can be 1, 0 or empty, for not known")
        return [_PRESENCE[value] for value in values]

    def error(self, reason: str) -> DataError:
        """Return an error that names the line."""
        return DataError(f"{self.table}, line {self.line}: {reason}.")


def _located(top: Path, rows: Sequence[_Row]) -> Iterator[Path]:
    """Yield the image file of every row, from a folder or those below it."""
    # One walk over the folder instead of a search for every row.
    files, lines = _files_by_name(top), dict[Path, int]()
    for row in rows:
        path = _path(top, row, files.get(row.image.name, []))
        if path in lines:
            raise row.error(f"{row.image} is already listed in line {lines[path]}")
        lines[path] = row.line
        yield path


def _path(top: Path, row: _Row, candidates: Sequence[Path]) -> Path:
    """Return the image file of a row: in `top`, in the folder of its split, or anywhere below."""
    folders = (Path(), Path(row.values.get("split") or ""), Path(row.split))
    for folder in folders:
        if (path := top / folder / row.image) in candidates:
            return path
    matches = [path for path in candidates if path.match(str(row.image))]
    if not matches:
        raise row.error(f"there is no file {row.image} in {top} or below")
    if len(matches) > 1:
        raise row.error(
            f"{row.image} can be {matches[0]} or {matches[1]}; write it with its folder"
        )
    return matches[0]


def _files_by_name(top: Path) -> dict[str, list[Path]]:
    """Map file names to all files of that name in a folder and below it."""
    files: dict[str, list[Path]] = {}
    for folder, _, names in os.walk(top):
        for name in names:
            files.setdefault(name, []).append(Path(folder, name))
    return files
