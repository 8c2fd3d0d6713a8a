from collections.abc import Callable
from pathlib import Path

import pytest

from understudy.data.sources import csv, drawn_shapes, folder, load_validation
from understudy.data.sources._splits import NoSplit, choose
from understudy.errors import DataError, RecipeError


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_a_validation_split_lies_beside_the_test_split(name: str) -> None:
    assert choose("validation", ["train", name, "test"]) == name
    assert choose("test", ["train", name, "test"]) == "test"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_without_a_test_split_it_is_the_test_split(name: str) -> None:
    assert choose("test", ["train", name]) == name
    assert choose("validation", ["train", name]) is None


def test_two_candidates_are_refused() -> None:
    for split, names in (("validation", ["val", "valid", "test"]), ("test", ["val", "valid"])):
        with pytest.raises(DataError, match=f"val and valid could each be the {split} split"):
            choose(split, names)  # type: ignore[arg-type]
    assert choose("test", ["val", "valid", "test"]) == "test"


def test_a_folder_has_three_splits(tree: Path, paint: Callable[..., Path]) -> None:
    assert load_validation("folder", str(tree)) is None
    paint("test/dog/0.png")
    source = load_validation("folder", str(tree))
    assert source is not None
    assert (source.labels.tolist(), source.classes) == ([0, 1], ("cat", "dog"))
    assert folder.load(str(tree), "test").labels.tolist() == [1]


def test_a_table_has_three_splits(tmp_path: Path, paint: Callable[..., Path]) -> None:
    for i in range(3):
        paint(f"{i}.png", seed=i)
    file = tmp_path / "all.csv"
    file.write_text("path,label,split\n0.png,b,train\n1.png,a,valid\n2.png,b,test\n")
    source = load_validation("csv", str(file), unreadable="fail")
    assert source is not None
    assert source.labels.tolist() == [0]
    assert csv.load(str(file), "test").labels.tolist() == [1]
    file.write_text("path,label\n0.png,b\n")
    assert load_validation("csv", str(file)) is None
    with pytest.raises(NoSplit, match="no validation split beside a test split"):
        csv.load(str(file), "validation")


def test_sources_without_a_validation_split() -> None:
    assert not hasattr(drawn_shapes, "SPLITS")
    assert load_validation("drawn_shapes", "") is None


@pytest.mark.parametrize("source", [csv, folder])
def test_an_address_is_no_local_path(source: object) -> None:
    with pytest.raises(RecipeError, match=r"data\.root is 's3://bucket/x', an address"):
        source.load("s3://bucket/x", "train")  # type: ignore[attr-defined]
