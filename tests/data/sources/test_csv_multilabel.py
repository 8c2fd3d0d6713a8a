"""Tables of images with several classes each, in both forms."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from understudy.batch import UNLABELLED
from understudy.data.sources import coco, csv
from understudy.errors import DataError

Paint = Callable[..., Path]
Table = Callable[[str], str]


@pytest.fixture
def table(tmp_path: Path, paint: Paint) -> Table:
    """Writes a CSV file above the images of two splits."""
    for name in ("train2017/a", "train2017/b", "images/deep/c", "test/a", "val/d"):
        paint(f"{name}.png", seed=len(name))

    def write(text: str) -> str:
        path = tmp_path / "data.csv"
        path.write_text(text)
        return str(path)

    return write


HEAD = "split,file_name,cat,dog\n"


def test_a_column_for_every_class(table: Table) -> None:
    root = table(
        f"{HEAD}train2017,a.png,1,0\ntrain2017,b.png,,1\n,c.png,0,0\ntest,a.png,1,1\nval,d.png,0,1"
    )
    train, test = csv.load(root, "train"), csv.load(root, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [[1, 0], [UNLABELLED, 1], [0, 0]]
    assert test.labels.tolist() == [[1, 1]]
    assert not torch.equal(train.image(0), test.image(0))
    assert train.target(0) is None


def test_val_is_the_test_split_where_there_is_no_other(table: Table) -> None:
    root = table(f"{HEAD}train,deep/c.png,1,0\nval,d.png,0,1\n")
    assert csv.load(root, "test").labels.tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        csv.load(table(f"{HEAD}train,c.png,1,0\n"), "test")
    with pytest.raises(DataError, match="lists no images of the split 'train'"):
        csv.load(table(f"{HEAD}val,d.png,1,0\n"), "train")


def test_names_in_one_column(table: Table) -> None:
    root = table(
        "path,label,split\ntrain2017/a.png,dog;cat,train\ntrain2017/b.png,cat | cow,train\n"
        "images/deep/c.png,,train\ntest/a.png,;,test\nval/d.png,dog,test\n"
    )
    train, test = csv.load(root, "train"), csv.load(root, "test")
    assert train.classes == test.classes == ("cat", "cow", "dog")
    assert train.labels.tolist() == [[1, 0, 1], [1, 1, 0], [UNLABELLED] * 3]
    assert test.labels.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert train.labelled.tolist() == [True, True, False]


def test_numbers_in_one_column_are_the_classes(table: Table) -> None:
    root = table("path,label\ntrain2017/a.png,10;2\ntrain2017/b.png,03\nval/d.png,;\n")
    source = csv.load(root, "train")
    assert source.classes == tuple(map(str, range(11)))
    assert [row.nonzero().flatten().tolist() for row in source.labels] == [[2, 10], [3], []]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train,a.png,1,2\n", "line 2: 'dog' is '2'; it can be 1, 0 or empty, for not known"),
        ("train,a.png,1,-1\n", "line 2: 'dog' is '-1'"),
        ("train,a.png,1\n", "line 2: there are not as many values as columns"),
        ("train,a.png,1,0,1\n", "line 2: there are not as many values as columns"),
        ("train,,1,0\n", "line 2: the file_name is empty"),
        ("dev,a.png,1,0\n", "line 2: the split is 'dev'; it can be: train, test"),
        ("train2017,z.png,1,0\n", r"line 2: there is no file z\.png in .* or below"),
        ("train,a.png,1,0\n", r"line 2: a\.png can be .*a\.png or .*a\.png; write it with its"),
        ("train,c.png,1,0\ntrain,c.png,1,1\n", r"line 3: c\.png is already listed in line 2"),
    ],
)
def test_bad_rows_are_named_by_line(table: Table, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv.load(table(HEAD + rows), "train")


@pytest.mark.parametrize("head", ["split,file_name\n", "split,file_name,cat,cat\n"])
def test_every_class_needs_one_column(table: Table, head: str) -> None:
    with pytest.raises(DataError, match="line 1: each class needs one column"):
        csv.load(table(f"{head}train,c.png,1,1\n"), "train")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("bccd", "multilabel.csv"),
        ("fruits", "multilabel.csv"),
        ("coco128", "multilabel_train2017.csv"),
    ],
)
def test_real_tables_say_what_the_boxes_say(
    unpacked: Callable[[str], Path], name: str, file: str
) -> None:
    root = unpacked(name)
    table, boxes = csv.load(str(root / file), "train"), coco.load(str(root), "train")
    # COCO writes "traffic light", a header of that table "traffic_light".
    assert table.classes == tuple(each.replace(" ", "_") for each in boxes.classes)
    assert torch.equal(table.labels, boxes.labels)
    assert torch.equal(table.image(7), boxes.image(7))
