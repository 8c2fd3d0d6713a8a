"""A CSV file of image paths and labels: columns `path`, `label` and, if there are splits, `split`.

Paths are relative to the folder of the CSV file, or absolute, and lie inside it. Labels are class
names, numbered alphabetically, or class numbers, used unchanged; of ids such as 100000 and 300000,
those that occur are the classes. An empty label and `nan` mean unlabelled. Without the column
`split` all rows are `train`. The test split may also be called `val`, `valid` or `validation`;
beside `test`, rows of that name are the validation split. Columns are separated by commas,
semicolons, tabs or `|`; other columns are ignored.

For images with several classes, `label` holds their names separated by `;` or `|`; a separator
alone means that the image has none of the classes. Alternatively, every class has a column, as in

    split,file_name,cat,dog
    train,0001.jpg,1,0
    train,0002.jpg,1,

with 1 or True for present, 0 or False for absent, and an empty value or `nan` for not known; -1 is
absent in a table without 0, and refused in one with it. Every column is a class, but for an index
that pandas wrote. The image files are searched for beside the CSV file, in the folder of their
split, and in all folders below. The name of a split may end in a year (`train2017`); of several
test splits, the first of `test`, `val`, … is used. The file of attributes of CelebA is such a
table too, as text or CSV; its splits are those of `list_eval_partition` beside it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch

from understudy.batch import UNLABELLED
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources import _csv_multilabel
from understudy.data.sources._csv_multilabel import FILE_COLUMNS
from understudy.data.sources._many_files import of_table
from understudy.data.sources._named_files import is_file, is_inside
from understudy.data.sources._numbered import labels_of, names_of
from understudy.data.sources._splits import TEST_NAMES, choose, no_split
from understudy.data.sources._table import Table, Values, read
from understudy.data.sources._values import number
from understudy.errors import DataError
from understudy.files import refuse_address

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    split: str
    is_nan: bool = False


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, in the order of the file.

    Raises:
        NoSplit: No row is of the split.
        DataError: The file, a column or an image is missing, or a value is invalid: the message
            names the line.
    """
    refuse_address(root, "data.root")
    file = Path(root)
    if not root or not file.is_file():
        raise DataError(
            f"There is no file {root!r}; set data.root to a CSV file of paths and labels."
        )
    table = read(file)
    if "label" not in table.columns and not set(FILE_COLUMNS).isdisjoint(table.columns):
        return _csv_multilabel.load(table, split, unreadable=unreadable)
    rows = _rows(table)
    # The classes are those of all splits together, so that their labels agree.
    classes, numbers = _numbered(file, rows)
    selected = _of_split(rows, split, root)
    _check_repeated(file, [rows[i] for i in selected])
    for i in selected:
        _check_file(file, rows[i])
    paths, labels = [rows[i].path for i in selected], torch.tensor([numbers[i] for i in selected])
    source = of_table(file, paths, labels, classes, unreadable)
    source.split_name = rows[selected[0]].split
    if missing := sum(rows[i].is_nan for i in selected):
        line = f"{missing} of {len(selected)} rows have the label nan: kept as unlabelled"
        source.skipped = (*source.skipped, line)
    return source


def _of_split(rows: Sequence[_Row], split: Split, root: str) -> list[int]:
    """Return the numbers of the rows of a split."""
    name = choose(split, {row.split for row in rows})
    selected = [i for i, row in enumerate(rows) if row.split == name]
    if not selected:
        raise DataError(f"{root} lists no images.") if split == "train" else no_split(split, root)
    return selected


def _check_repeated(file: Path, rows: Sequence[_Row]) -> None:
    """Refuse an image in two rows with different labels; the same row may be there repeatedly."""
    first = dict[Path, _Row]()
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier.label != row.label:
            raise DataError(
                f"{file}, line {row.line}: {row.path.name} has the label {row.label!r}, but "
                f"{earlier.label!r} in line {earlier.line}; correct one of them, or list all "
                "classes of an image in one row, separated by ; or |."
            )


def _check_file(file: Path, row: _Row) -> None:
    """Refuse an image that does not exist, or lies outside of the folder of the CSV file."""
    if not is_inside(row.path, file.parent):
        raise DataError(
            f"{file}, line {row.line}: {row.path} is outside of the folder of the CSV file; move "
            "the CSV file to a folder that holds all of its images."
        )
    if not is_file(row.path):
        raise DataError(f"{file}, line {row.line}: there is no file {row.path}.")


def _rows(table: Table) -> list[_Row]:
    for column in ("path", "label", "split"):
        if table.columns.count(column) > 1:
            raise DataError(f"{table.file}, line 1: the column {column!r} is there twice.")
    for column in ("path", "label"):
        if column not in table.columns:
            raise DataError(
                f"{table.file}, line 1: there is no column {column!r}; the header must be "
                "'path,label', 'path,label,split' or 'split,file_name' and a column for each class."
            )
    return [_row(table.file, line, values) for line, values in table.rows]


def _row(file: Path, line: int, values: Values) -> _Row:
    path, label = (values[column] or "" for column in ("path", "label"))
    name = values.get("split") or "train"
    if not path:
        raise DataError(f"{file}, line {line}: the path is empty.")
    if name not in ("train", *TEST_NAMES):
        raise DataError(
            f"{file}, line {line}: the split is {name!r}; "
            f"it can be: train, {', '.join(TEST_NAMES)}."
        )
    # As pandas writes a value that is missing; a class of this name would be one of no label.
    label, is_nan = label.strip(), label.strip().lower() == "nan"
    return _Row(line, file.parent / path, "" if is_nan else label, name, is_nan)


def _numbered(
    file: Path, rows: Sequence[_Row]
) -> tuple[list[str], list[int]] | tuple[list[str], list[list[int]]]:
    """Return class names, and the class number of each row, or the presence of every class."""
    if _csv_multilabel.has_lists([row.label for row in rows]):
        return _csv_multilabel.presence([row.label for row in rows])
    _csv_multilabel.check_lists(
        [row.label for row in rows], lambda i: f"{file}, line {rows[i].line}"
    )
    labels = _whole_numbers([row.label for row in rows])
    if labels is None:
        _check_no_measurements(file, rows)
        distinct = sorted({row.label for row in rows if row.label})
        places = {name: i for i, name in enumerate(distinct)}
        return distinct, [places.get(row.label, UNLABELLED) for row in rows]
    numbers = [int(label) if label else UNLABELLED for label in labels]
    for row, value in zip(rows, numbers, strict=True):
        if value < UNLABELLED:
            raise DataError(f"{file}, line {row.line}: the label {value} is negative.")
    names = names_of(numbers)
    return names, labels_of(numbers, names)


def _check_no_measurements(file: Path, rows: Sequence[_Row]) -> None:
    """Refuse labels that are all numbers, some of them fractions: each value would be a class."""
    numbers = [(row, number(row.label)) for row in rows if row.label]
    fraction = next((row for row, value in numbers if not value.is_integer()), None)
    if fraction and all(isfinite(value) for _, value in numbers):
        raise DataError(
            f"{file}, line {fraction.line}: the label {fraction.label!r} is a number between "
            "classes; labels are class names or whole numbers, so sort the values into classes."
        )


def _whole_numbers(labels: Sequence[str]) -> list[str] | None:
    """Return labels as whole numbers, empty where there is none; None if some are names.

    A column of numbers that lacks some is written as 3.0 and nan by pandas.
    """
    if not all(re.fullmatch(r"(-?\d+(\.0*)?)?|nan", label, re.IGNORECASE) for label in labels):
        return None
    return ["" if label.lower() == "nan" else label.partition(".")[0] for label in labels]
