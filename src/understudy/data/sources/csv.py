"""A CSV file of image paths and labels: columns `path`, `label` and, if there are splits, `split`.

Paths are relative to the file's own folder. Labels are names, numbered alphabetically, or numbers,
taken as they are; an empty one means unlabelled. Without the column `split` all rows are `train`;
the test split may also be called `val`, `valid` or `validation`.

An image with several classes has their names in `label`, between `;` or `|`; nothing but such a
mark means that it has none. Or every class has a column, as in

    split,file_name,cat,dog
    train,0001.jpg,1,0
    train,0002.jpg,1,

with 1 for present, 0 for absent, and an empty place for not known. Such files are looked for beside
the table, in the folder of their split, and in all folders below. A split may have a year behind
its name (`train2017`); of several test splits, the first of `test`, `val`, … is taken.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from understudy.batch import UNLABELLED
from understudy.data.source import Source
from understudy.data.sources import _csv_multilabel
from understudy.data.sources._csv_multilabel import Values
from understudy.data.sources._files import from_files
from understudy.data.sources._splits import TEST_NAMES, no_test_split
from understudy.errors import DataError


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    split: Literal["train", "test"]


def load(
    root: str, split: Literal["train", "test"], *, unreadable: Literal["skip", "fail"] = "skip"
) -> Source:
    """The images of one split, in the order of the file.

    Raises:
        DataError: The file, one of its columns or an image in it is missing, or a value makes no
            sense: the message names the line.
    """
    table = Path(root)
    if not root or not table.is_file():
        raise DataError(
            f"There is no file {root!r}; set data.root to a CSV file of paths and labels."
        )
    try:
        columns, lines = _read(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV file in UTF-8: {error}.") from error
    if "file_name" in columns and "label" not in columns:
        return _csv_multilabel.load(table, columns, lines, split, unreadable=unreadable)
    rows = _rows(table, columns, lines)
    # Both splits together decide on the classes, so that their labels agree.
    classes, numbers = _numbered(table, rows)
    chosen = [i for i, row in enumerate(rows) if row.split == split]
    if not chosen:
        raise no_test_split(root) if split == "test" else DataError(f"{root} lists no images.")
    for i in chosen:
        if not rows[i].path.is_file():
            raise DataError(f"{table}, line {rows[i].line}: there is no file {rows[i].path}.")
    paths, labels = [rows[i].path for i in chosen], torch.tensor([numbers[i] for i in chosen])
    return from_files(paths, labels, classes, root=table.parent, unreadable=unreadable)


def _read(table: Path) -> tuple[Sequence[str], list[tuple[int, Values]]]:
    """The names of the columns; line number and values of every row."""
    # Spreadsheets put a byte order mark in front; utf-8-sig takes it away.
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return reader.fieldnames or (), [(reader.line_num, values) for values in reader]


def _rows(table: Path, columns: Sequence[str], lines: Sequence[tuple[int, Values]]) -> list[_Row]:
    for column in ("path", "label"):
        if column not in columns:
            raise DataError(
                f"{table}, line 1: there is no column {column!r}; the header must be "
                "'path,label', 'path,label,split' or 'split,file_name' and a column for each class."
            )
    return [_row(table, line, values) for line, values in lines]


def _row(table: Path, line: int, values: Values) -> _Row:
    path, label = (values[column] or "" for column in ("path", "label"))
    name = values.get("split") or "train"
    if not path:
        raise DataError(f"{table}, line {line}: the path is empty.")
    if name != "train" and name not in TEST_NAMES:
        raise DataError(
            f"{table}, line {line}: the split is {name!r}; "
            f"it can be: train, {', '.join(TEST_NAMES)}."
        )
    return _Row(line, table.parent / path, label.strip(), "train" if name == "train" else "test")


def _numbered(
    table: Path, rows: Sequence[_Row]
) -> tuple[list[str], list[int]] | tuple[list[str], list[list[int]]]:
    """Class names, and the label of each row, or of every class in it."""
    if _csv_multilabel.several([row.label for row in rows]):
        return _csv_multilabel.presence([row.label for row in rows])
    given = sorted({row.label for row in rows if row.label})
    if not all(re.fullmatch(r"-?\d+", label) for label in given):
        return given, [given.index(row.label) if row.label else UNLABELLED for row in rows]
    numbers = [int(row.label) if row.label else UNLABELLED for row in rows]
    for row, number in zip(rows, numbers, strict=True):
        if number < UNLABELLED:
            raise DataError(f"{table}, line {row.line}: the label {number} is negative.")
    return [str(n) for n in range(max(numbers, default=-1) + 1)], numbers
