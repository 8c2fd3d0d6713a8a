"""CSV files of images with several classes: a column per class, or a list of names as label."""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from understudy.batch import UNLABELLED
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._many_files import of_table
from understudy.data.sources._numbered import names_of
from understudy.data.sources._splits import SPLIT_NAMES, TEST_NAMES, no_split
from understudy.data.sources._table import Table, Values
from understudy.data.sources._values import flag, number
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")
FILE_COLUMNS = ("file_name", "image_id")
"""Names of the column of image files in a table with a column for each class."""
_OTHER_COLUMNS = ("split", *FILE_COLUMNS)
_UNKNOWN = ("", "nan", "na", "n/a", "<na>", "none", "null")
_SEPARATORS = re.compile(r"[;|]")


def has_lists(labels: Sequence[str]) -> bool:
    """Return True if any label is a list of names."""
    return any(_SEPARATORS.search(label) for label in labels)


def presence(labels: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Return the sorted class names, and for every label the presence of each class.

    Presence is 1 (in the list), 0, or -1 (`UNLABELLED`) for all classes of an empty label. If all
    names are numbers, the classes are those of `names_of`.
    """
    lists = [
        {name for part in _SEPARATORS.split(each) if (name := part.strip())} for each in labels
    ]
    names = sorted(set().union(*lists))
    if names and all(name.isdecimal() for name in names):
        # 03 is class 3.
        lists = [{str(int(name)) for name in each} for each in lists]
        names = names_of(map(int, names))
    return names, [
        [int(name in members) if label else UNLABELLED for name in names]
        for label, members in zip(labels, lists, strict=True)
    ]


def check_lists(labels: Sequence[str], where: Callable[[int], str]) -> None:
    """Refuse labels that may be lists of names in another form than with `;` or `|`.

    Args:
        labels: Labels of all rows, none of which is a list.
        where: Names the line of a row, for the error.

    Raises:
        DataError: A label is in brackets, of words that are each a label of their own, or of
            several numbers.
    """
    distinct = set(labels)
    for i, label in enumerate(labels):
        parts = [part.strip() for part in re.split(r"," if "," in label else r"\s+", label)]
        several = len(parts) > 1 and all(part.isdecimal() or part in distinct for part in parts)
        if several or (label[:1], label[-1:]) == ("[", "]"):
            raise DataError(
                f"{where(i)}: the label {label!r} can be one class or a list of classes; separate "
                "the classes of an image by ; or |, or rename the class."
            )


def load(table: Table, split: Split, *, unreadable: Unreadable) -> Source:
    """Load the images of one split of a table with a column per class, in the order of the file.

    Args:
        table: The table.
        split: Split to load; a year after its name in the file, as in `train2017`, is ignored.
        unreadable: What to do with files that cannot be decoded.

    Raises:
        NoSplit: The table has no such split.
        DataError: A value is invalid, or an image file is missing, ambiguous or listed twice; the
            message names the line.
    """
    file, columns = table.file, table.columns
    classes = [name for name in columns if name not in _OTHER_COLUMNS]
    if not classes or len(set(classes)) < len(classes):
        raise DataError(f"{file}, line 1: each class needs one column beside 'file_name'.")
    named_by = next(name for name in FILE_COLUMNS if name in columns)
    rows = [_Row(file, line, values, named_by) for line, values in table.rows]
    name = _name_of(split, {row.split for row in rows})
    if name is None:
        no_training = DataError(f"{file} lists no images of the split 'train'.")
        raise no_training if split == "train" else no_split(split, str(file))
    _check_signs(rows, classes)
    selected = [row for row in rows if row.split == name]
    labels = torch.tensor([row.labels(classes) for row in selected])
    paths = list(_located(file.parent, selected))
    source = of_table(file, paths, labels, classes, unreadable)
    source.split_name = name
    return source


def _name_of(split: Split, names: Collection[str]) -> str | None:
    """Return the name of a split; of several test splits, the first of `test`, `val`, …."""
    if split == "validation" and "test" not in names:
        return None
    return next((name for name in SPLIT_NAMES[split] if name in names), None)


def _check_signs(rows: "Sequence[_Row]", classes: Sequence[str]) -> None:
    """Refuse -1 beside 0: without 0 it means absent, as in CelebA, and with it nobody knows."""
    minus, zero = None, False
    for row in rows:
        values = {name: row.value(name) for name in classes}
        zero = zero or "0" in values.values()
        minus = minus or next(((row, name) for name in classes if values[name] == "-1"), None)
        if zero and minus:
            where, name = minus
            raise where.error(
                f"{name!r} is -1 in a table with 0, where it can be absent or not known; write 0 "
                "for absent, and leave empty what is not known"
            )
    if minus:
        LOGGER.info(f"{minus[0].table} has no 0: it is read with -1 as absent, and not as unknown.")


@dataclass(frozen=True)
class _Row:
    """One row of a CSV file; errors name its line."""

    table: Path
    line: int
    values: Values
    file_column: str

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
        name = self.values[self.file_column]
        if not name:
            raise self.error(f"the {self.file_column} is empty")
        return Path(name)

    def labels(self, classes: Sequence[str]) -> list[int]:
        """Return the presence of each class: 1, 0, or -1 (`UNLABELLED`) where it is not known."""
        if None in self.values or None in self.values.values():
            raise self.error("there are not as many values as columns")
        labels = {"1": 1, "0": 0, "-1": 0, "": UNLABELLED}
        return [labels[self.value(name)] for name in classes]

    def value(self, name: str) -> str:
        """Return the value of a class as 1, 0, -1, or empty where it is not known."""
        text = str(self.values[name] or "")
        value = _normal(text)
        if value is None:
            raise self.error(
                f"{name!r} is {text!r}; it can be 1, 0 or empty, for not known (remove the column "
                "if it is no class)"
            )
        return value

    def error(self, reason: str) -> DataError:
        """Return an error that names the line."""
        return DataError(f"{self.table}, line {self.line}: {reason}.")


@lru_cache(maxsize=1024)  # a table repeats few texts millions of times
def _normal(text: str) -> str | None:
    """Return a value as 1, 0, -1, or empty where it is not known; None for any other."""
    if text.lower() in _UNKNOWN:
        return ""
    present = flag(text)
    if present is not None:
        return str(int(present))
    return "-1" if number(text) == -1 else None


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
