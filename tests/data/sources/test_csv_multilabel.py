"""Tables of images with several classes each, in both forms."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from understudy.batch import UNLABELLED
from understudy.data.sources import coco, csv, load_validation
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


def test_ids_in_one_column_are_the_classes_that_occur(table: Table) -> None:
    root = table("path,label\ntrain2017/a.png,300000;2\ntrain2017/b.png,100000\nval/d.png,;\n")
    source = csv.load(root, "train")
    assert source.classes == ("2", "100000", "300000")
    assert source.labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train,a.png,1,2\n", "line 2: 'dog' is '2'; it can be 1, 0 or empty, for not known"),
        (
            "train,a.png,1,-1\ntrain,b.png,0,1",
            "line 2: 'dog' is -1 in a table with 0, where it can",
        ),
        ("train,a.png,1,0.5\n", "line 2: 'dog' is '0.5'; .*remove the column if it is no class"),
        ("train,a.png,1,brown\n", "line 2: 'dog' is 'brown'; it can be 1, 0 or empty, for not"),
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


@pytest.mark.parametrize(
    ("present", "absent", "unknown"),
    [
        ("1", "-1", ""),
        ("1.0", "-1.0", "nan"),
        ("True", "False", "NaN"),
        ("1.0", "0.0", "nan"),
        (" 1", " 0", "None"),
        ("yes", "no", "<NA>"),
    ],
)
def test_values_as_other_programs_write_them(
    table: Table,
    present: str,
    absent: str,
    unknown: str,
    log: pytest.LogCaptureFixture,
) -> None:
    rows = f"train2017,a.png,{present},{absent}\ntrain2017,b.png,{unknown},{present}\n"
    source = csv.load(table(HEAD + rows), "train")
    assert source.labels.tolist() == [[1, 0], [UNLABELLED, 1]]
    assert ("-1 as absent" in log.text) == ("-1" in absent)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("index", ["", "Unnamed: 0"])
def test_separators_and_the_index_of_pandas(table: Table, separator: str, index: str) -> None:
    rows = (
        (index, "file_name", "cat", "big dog"),
        ("0", "b.png", "1", "0"),
        ("1", "c.png", "", "1"),
    )
    source = csv.load(table("\n".join(map(separator.join, rows))), "train")
    assert (source.classes, source.labels.tolist()) == (("cat", "big dog"), [[1, 0], [-1, 1]])


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_names_in_one_column_between_other_separators(table: Table, separator: str) -> None:
    between = ";" if separator == "|" else "|"
    rows = (("path", "label"), ("train2017/a.png", f"dog{between}cat"), ("val/d.png", between))
    source = csv.load(table("\n".join(map(separator.join, rows))), "train")
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [[1, 1], [0, 0]])


@pytest.mark.parametrize(
    "label", ["cat dog", '"cat,dog"', '"cat, dog"', "['cat']", '"[0, 3]"', "3 7"]
)
def test_lists_of_another_form_are_refused(table: Table, label: str) -> None:
    root = table(f"path,label\ntrain2017/a.png,cat\nval/d.png,dog\nimages/deep/c.png,{label}\n")
    with pytest.raises(DataError, match=r"line 4: the label .* separate the classes .* by ; or \|"):
        csv.load(root, "train")
    assert csv.load(table("path,label\nval/d.png,big dog\n"), "train").classes == ("big dog",)


CELEBA = "3\nBald Male\na.png -1  1\nb.png  1 -1\nc.png -1 -1\n"


def test_the_text_file_of_celeba(table: Table, tmp_path: Path, paint: Paint) -> None:
    for name in "abc":
        paint(f"img/{name}.png")
    (tmp_path / "img/list_attr_celeba.txt").write_text(CELEBA)
    root = str(tmp_path / "img/list_attr_celeba.txt")
    source = csv.load(root, "train")
    assert source.classes == ("Bald", "Male")
    assert source.labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        csv.load(root, "test")
    (tmp_path / "img/list_eval_partition.txt").write_text("a.png 0\nb.png 2\nc.png 1\n")
    splits = [csv.load(root, split).labels.tolist() for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert splits == [[[0, 1]], [[0, 0]], [[1, 0]]]
    (tmp_path / "img/list_eval_partition.txt").write_text("a.png 0\nb.png 2\n")
    with pytest.raises(DataError, match=r"line 5: list_eval_partition\.txt does not say the split"):
        csv.load(root, "train")
    (tmp_path / "img/list_attr_celeba.txt").write_text(CELEBA.replace("3", "4", 1))
    with pytest.raises(DataError, match="line 1: the file is said to have 4 rows, but has 3"):
        csv.load(root, "train")


def test_the_csv_file_of_celeba(tmp_path: Path, paint: Paint) -> None:
    for name in "ab":
        paint(f"{name}.png")
    root = tmp_path / "list_attr_celeba.csv"
    root.write_text("image_id,Bald,Male\na.png,-1,1\nb.png,1,-1\n")
    (tmp_path / "list_eval_partition.csv").write_text("image_id,partition\na.png,0\nb.png,2\n")
    assert csv.load(str(root), "train").labels.tolist() == [[0, 1]]
    assert csv.load(str(root), "test").labels.tolist() == [[1, 0]]


def test_two_columns_of_files(table: Table) -> None:
    source = csv.load(table("file_name,image_id,cat\nc.png,17,1\n"), "train")
    assert (source.classes, source.labels.tolist()) == (("cat",), [[1]])


def test_three_splits_of_columns(table: Table) -> None:
    root = table(f"{HEAD}train2017,a.png,1,0\nval,d.png,0,1\ntest,a.png,1,1\n")
    source = load_validation("csv", root)
    assert source is not None
    assert source.labels.tolist() == [[0, 1]]
    assert load_validation("csv", table(f"{HEAD}train2017,a.png,1,0\nval,d.png,0,1\n")) is None


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
