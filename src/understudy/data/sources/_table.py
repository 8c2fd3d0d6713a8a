"""Read a table of images from a text file: its columns, and the line and values of every row."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from understudy.data.sources._named_files import is_file
from understudy.errors import DataError

Values = Mapping[str | None, Any]
"""Column → value of one row.

As `csv.DictReader` has it: None is the value of a column that the row is too short for, and the key
of the values that it has beyond the last column.
"""

_SEPARATORS = (",", ";", "\t", "|")
_FILE_COLUMNS = ("path", "file_name", "image_id")
_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
"""Files in which CelebA says which images are for training (0), validation (1) and test (2)."""
_INDEX = re.compile(r"(Unnamed: \d+)?")
"""Names of the column in which pandas writes the number of a row."""


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes:
        file: The file.
        columns: Names of the columns, in order, without an index that pandas wrote.
        rows: Line and values of every row.
    """

    file: Path
    columns: Sequence[str]
    rows: Sequence[tuple[int, Values]]


def read(file: Path) -> Table:
    """Read a table whose values are separated by commas, semicolons, tabs or `|`.

    The text file of attributes of CelebA is a table too: the number of rows, the names of the
    columns, and then the values, all separated by spaces.

    Raises:
        DataError: The file is no text, or a quote is not closed.
    """
    lines = _lines(file)
    count, names, first = ([*(line.split() for line in lines[:3]), [], [], []])[:3]
    if len(count) == 1 and count[0].isdecimal() and names and len(first) == len(names) + 1:
        return _of_celeba(file, lines)
    records = list(_records(file, lines, _separator(lines[0] if lines else "")))
    for begin, end, _ in records:
        if begin < end:
            raise _unclosed(file, begin, end)
    names = [name.strip() for name in records[0][2]] if records else []
    rows = [(line, _values(names, values)) for line, _, values in records[1:]]
    columns = [name for name in names if not _INDEX.fullmatch(name)]
    if columns[:1] == ["image_id"] and file.stem.lower() == "list_attr_celeba":
        rows, columns = _with_partition(file, rows), [*columns, "split"]
    return Table(file, columns, rows)


def check_quotes(file: Path) -> None:
    """Refuse a CSV file in which a lone quote makes one value of several rows.

    A value of several lines is one of these if any line but its first names a file beside the CSV
    file: other values may have several lines, such as descriptions.

    Raises:
        DataError: The file is no text, or a quote is not closed; the message names the line.
    """
    lines = _lines(file)
    separator = _separator(lines[0] if lines else "")
    for first, last, _ in _records(file, lines, separator):
        words = (word for line in lines[first:last] for word in line.split(separator))
        if any(is_file(file.parent / word.strip(' "\r\n')) for word in words):
            raise _unclosed(file, first, last)


def _lines(file: Path) -> list[str]:
    content = file.read_bytes()
    # Spreadsheets write a byte order mark first, and some of them two bytes for each letter.
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a CSV file in UTF-8: {error}.") from error
    # Unlike str.splitlines, not at separators that a value may hold.
    return list(StringIO(text, newline=""))


def _separator(header: str) -> str:
    """Return what separates the columns of a header: by its known names, else the commonest."""
    for separator in _SEPARATORS:
        names = {name.strip().strip('"') for name in header.split(separator)}
        if len(names) > 1 and not names.isdisjoint(_FILE_COLUMNS):
            return separator
    return max(_SEPARATORS, key=header.count)


_ADVICE = 'close every quote, and write "" for a quote within a value'


def _unclosed(file: Path, first: int, last: int) -> DataError:
    return DataError(
        f"{file}, line {first}: a quote opens a value that ends only in line {last}; {_ADVICE}."
    )


def _records(
    file: Path, lines: Sequence[str], separator: str
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield first line, last line and values of every row that is not empty.

    Raises:
        DataError: A quote is not closed at the end of the file, or closed within a value.
    """
    reader, line = csv.reader(lines, delimiter=separator, strict=True), 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{file}, line {line}: the row cannot be read ({error}); {_ADVICE}."
            ) from error
        if values:
            yield line, reader.line_num, values
        line = reader.line_num + 1


def _values(columns: Sequence[str], values: Sequence[str]) -> Values:
    stripped = [value.strip() for value in values]
    row: dict[str | None, Any] = dict.fromkeys(columns)
    row |= dict(zip(columns, stripped, strict=False))
    return row | ({None: stripped[len(columns) :]} if len(values) > len(columns) else {})


def _of_celeba(file: Path, lines: Sequence[str]) -> Table:
    columns = ["file_name", *lines[1].split()]
    rows = [
        (line, _values(columns, text.split()))
        for line, text in enumerate(lines[2:], 3)
        if text.strip()
    ]
    if len(rows) != int(lines[0]):
        raise DataError(
            f"{file}, line 1: the file is said to have {lines[0].strip()} rows, but has "
            f"{len(rows)}; correct the number, or get the whole file."
        )
    return Table(file, [*columns, "split"], _with_partition(file, rows))


def _with_partition(file: Path, rows: Sequence[tuple[int, Values]]) -> list[tuple[int, Values]]:
    """Return the rows of CelebA with the split that the file of partitions beside it says."""
    beside = next((path for name in _PARTITIONS if (path := file.with_name(name)).is_file()), None)
    if beside is None:
        return [(line, {**values, "split": "train"}) for line, values in rows]
    words = [re.split(r"[,\s]+", line.strip()) for line in _lines(beside)]
    split = {"0": "train", "1": "val", "2": "test"}
    splits = {
        name: split[number] for name, number, *_ in filter(_is_pair, words) if number in split
    }
    known = [
        (line, values, values.get("file_name") or values.get("image_id")) for line, values in rows
    ]
    for line, _, name in known:
        if name not in splits:
            raise DataError(f"{file}, line {line}: {beside.name} does not say the split of {name}.")
    return [(line, {**values, "split": splits[name]}) for line, values, name in known]


def _is_pair(words: Sequence[str]) -> bool:
    return len(words) >= 2
