from collections.abc import Callable
from pathlib import Path

import pytest

from understudy.batch import UNLABELLED
from understudy.data.sources import csv
from understudy.data.sources._numbered import labels_of, names_of
from understudy.errors import DataError


@pytest.fixture
def table(tmp_path: Path, paint: Callable[..., Path]) -> Callable[[str], str]:
    """Writes a CSV file beside the images 0.png to 3.png."""
    for i in range(4):
        paint(f"images/{i}.png", seed=i)

    def write(text: str) -> str:
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


Table = Callable[[str], str]


def test_names_splits_and_missing_labels(table: Table) -> None:
    root = table(
        "path,label,split\nimages/0.png,dog,train\nimages/1.png,,train\n"
        "images/2.png,cat,val\nimages/3.png,ant,test\n"
    )
    train, test = csv.load(root, "train"), csv.load(root, "test")
    assert train.classes == test.classes == ("ant", "cat", "dog")
    assert train.labels.tolist() == [2, UNLABELLED]
    assert (test.labels.tolist(), csv.load(root, "validation").labels.tolist()) == ([0], [1])


def test_numbers_are_taken_as_they_are(table: Table, tmp_path: Path) -> None:
    root = table(f"label,path\n10,images/0.png\n2,{tmp_path}/images/1.png\n-1,images/2.png\n")
    source = csv.load(root, "train")
    assert source.labels.tolist() == [10, 2, UNLABELLED]
    assert len(source.classes) == 11


def test_numbers_as_pandas_writes_a_column_that_lacks_some(table: Table) -> None:
    root = table(
        "path,label\nimages/0.png,10.0\nimages/1.png,2.0\nimages/2.png,nan\nimages/3.png,\n"
    )
    source = csv.load(root, "train")
    assert source.labels.tolist() == [10, 2, UNLABELLED, UNLABELLED]
    assert source.classes == tuple(map(str, range(11)))


def test_an_image_in_several_rows(table: Table) -> None:
    rows = "path,label\nimages/0.png,a\nimages/1.png,b\nimages/0.png,{}\n"
    assert csv.load(table(rows.format("a")), "train").labels.tolist() == [0, 1, 0]
    message = r"line 4: 0\.png has the label 'b', but 'a' in line 2; .* in one row, separated by ;"
    with pytest.raises(DataError, match=message):
        csv.load(table(rows.format("b")), "train")


def test_byte_order_mark_and_quotes(table: Table) -> None:
    assert csv.load(table('\ufeffpath,label\n"images/0.png","big, dog"\n'), "train").classes == (
        "big, dog",
    )


def test_unreadable_image_is_skipped(table: Table, tmp_path: Path) -> None:
    root = table("path,label\nimages/0.png,a\nimages/1.png,b\n")
    (tmp_path / "images/0.png").write_text("text")
    source = csv.load(root, "train")
    assert (source.labels.tolist(), len(source.skipped)) == ([1], 1)
    with pytest.raises(DataError, match="1 of 2 files"):
        csv.load(root, "train", unreadable="fail")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nimages/0.png,a\nimages/9.png,b\n", r"line 3: there is no file .*9\.png"),
        ("path,label\n,a\n", "line 2: the path is empty"),
        ("file,label\na,b\n", "line 1: there is no column 'path'"),
        ("path\nimages/0.png\n", "line 1: there is no column 'label'"),
        ("path,label,split\nimages/0.png,a,dev\n", "line 2: the split is 'dev'; it can be: train"),
        ("path,label\nimages/0.png,-3\n", "line 2: the label -3 is negative"),
        ("path,label\nimages/0.png,1\nimages/1.png,0.5\n", "line 3: the label '0.5' is a number"),
        ("path,label\nimages/0.png,23.5\nimages/1.png,1e1\n", "line 2: the label '23.5' is a n"),
        ("path,label\n", "lists no images"),
        ("path,label, label\nimages/0.png,a,b\n", "line 1: the column 'label' is there twice"),
        ("path,label,split\nimages/0.png\nimages/1.png,--1\n,", "line 4: the path is empty"),
        ("", "line 1: there is no column 'path'"),
    ],
)
def test_bad_tables_are_named_by_line(table: Table, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv.load(table(text), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,label\nimages/0.png,"a\nimages/1.png,b\n', r"line 2: the row cannot be read \(une"),
        ('path,label\nimages/0.png,"a\nimages/1.png,"b"\n', "line 2: the row cannot be read"),
        ('path,label\nimages/0.png,a\n"images/1.png,b\nimages/2.png",c\n', "line 3: a quote open"),
        ('path,label,note\nimages/0.png,a,"n\nimages/1.png,b,"\n', "ends only in line 3; close e"),
        ('split,file_name,cat\ntrain,0.png,"1\ntrain,1.png,1"\n', "line 2: a quote opens a value"),
        ('path;label\nimages/0.png;"a\nimages/1.png;b"\n', "line 2: a quote opens a value that e"),
    ],
)
def test_a_lone_quote_swallows_no_rows(table: Table, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv.load(table(text), "train")


def test_quotes_inside_of_values(table: Table, tmp_path: Path) -> None:
    root = table('"path","label"\r\n"images/0.png","5"" pipe"\r\nimages/1.png,5" pipe\r\n')
    assert csv.load(root, "train").classes == ('5" pipe',)
    Path(root).write_text("path\tlabel\nimages/0.png\ta\n", encoding="utf-16")
    assert csv.load(root, "train").classes == ("a",)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(DataError, match=r"photo\.csv is not a CSV file in UTF-8"):
        csv.load(str(tmp_path / "photo.csv"), "train")


def test_no_test_rows(table: Table) -> None:
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        csv.load(table("path,label\nimages/0.png,a\n"), "test")


def test_missing_file() -> None:
    with pytest.raises(DataError, match=r"There is no file 'nowhere\.csv'"):
        csv.load("nowhere.csv", "train")


def test_ids_are_the_classes_that_occur(table: Table) -> None:
    root = table(
        "path,label,split\nimages/0.png,300000,train\nimages/1.png,100000,train\n"
        "images/2.png,,train\nimages/3.png,200000,test\n"
    )
    train, test = csv.load(root, "train"), csv.load(root, "test")
    assert train.classes == test.classes == ("100000", "200000", "300000")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, UNLABELLED], [1])


@pytest.mark.parametrize("numbers", [[0, 999], [3, 5], list(range(0, 20000, 7))])
def test_class_numbers_stay_what_they_are(numbers: list[int]) -> None:
    names = names_of(numbers)
    assert len(names) == max(numbers) + 1
    assert labels_of(numbers, names) == numbers


@pytest.mark.parametrize("path", ["../outside.png", "images/../../outside.png", "/etc/hostname"])
def test_files_outside_of_the_folder_are_refused(
    table: Table, tmp_path: Path, paint: Callable[..., Path], path: str
) -> None:
    paint("../outside.png")
    with pytest.raises(DataError, match=r"line 2: .* is outside of the folder of the CSV file"):
        csv.load(table(f"path,label\n{path},a\n"), "train")


def test_a_link_inside_the_folder_is_followed(table: Table, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "self.png").symlink_to("self.png")
    assert len(csv.load(table("path,label\nlink/0.png,a\n"), "train")) == 1
    with pytest.raises(DataError, match=r"line 2: there is no file .*self\.png"):
        csv.load(table("path,label\nself.png,a\n"), "train")


def test_nan_among_names_is_no_class_and_is_counted(
    tmp_path: Path, paint: Callable[..., Path]
) -> None:
    for i in range(5):
        paint(f"{i}.png", seed=i)
    rows = ["0.png,cat,train", "1.png,nan,train", "2.png,NaN,train", "3.png,dog,train"]
    file = tmp_path / "images.csv"
    file.write_text("\n".join(["path,label,split", *rows, "4.png,dog,test"]) + "\n")
    train, test = csv.load(str(file), "train"), csv.load(str(file), "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, UNLABELLED, UNLABELLED, 1]
    assert train.skipped == ("2 of 4 rows have the label nan: kept as unlabelled",)
    assert test.skipped == ()
    file.write_text("path,label\n0.png,cat;dog\n1.png,nan\n2.png,dog\n")
    several = csv.load(str(file), "train")
    assert several.classes == ("cat", "dog")
    assert several.labels[1].tolist() == [UNLABELLED] * 2
