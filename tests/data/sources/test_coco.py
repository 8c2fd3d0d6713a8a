"""Boxes in JSON: both layouts, gaps in the numbers, crowds, and everything that can be wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.data import Source
from understudy.data.sources import coco, voc
from understudy.errors import DataError

Paint = Callable[..., Path]
NAN = float("nan")


def thing(image: Any, category: Any, bbox: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox} | more


def content(images: dict[int, str], *things: dict[str, Any]) -> dict[str, Any]:
    listed = [{"id": i, "file_name": n, "height": 70, "width": 80} for i, n in images.items()]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "cup"}]
    return {"images": listed, "annotations": list(things), "categories": categories}


FIRST = content(
    {7: "a.jpg", 5: "b.jpg"},
    thing(5, 18, [10.5, 12, 30, 38], area=700.5, iscrowd=0),
    thing(7, 90, [5, 5, 60, 50], iscrowd=1),
    thing(5, 3, [0, 0, 80, 70]),
)


@pytest.fixture
def write(tmp_path: Path, paint: Paint) -> Callable[..., Path]:
    """Two images in train2017, and the JSON file about them."""
    paint("train2017/a.jpg", seed=1)
    paint("train2017/b.jpg", seed=2)

    def save(stated: Any, name: str = "annotations/instances_train2017.json") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stated if isinstance(stated, str) else json.dumps(stated))
        return tmp_path

    return save


Write = Callable[..., Path]


def load(root: Path, split: Any = "train", **choices: Any) -> Source:
    return coco.load(str(root), split, **choices)


def test_numbers_with_gaps_and_crowds(write: Write) -> None:
    source = load(write(FIRST), faulty="fail")
    assert source.classes == ("car", "dog", "cup")
    assert source.labels.tolist() == [[0, 0, 1], [1, 1, 0]]
    target = source.target(1)
    assert target["boxes"].tolist() == [[10.5, 12, 40.5, 50], [0, 0, 80, 70]]
    assert target["labels"].tolist() == [1, 0]
    assert target["areas"].tolist() == [700.5, 5600]
    assert source.target(0)["crowd"].tolist() == [True]
    assert target["crowd"].tolist() == [False, False]
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        load(write(FIRST), "test")


def test_the_test_file_goes_by_names(write: Write, paint: Paint) -> None:
    other = content({1: "c.jpg"}, thing(1, 1, [1, 2, 30, 40]))
    other["categories"] = [{"id": 1, "name": "cup"}]
    paint("images/val2017/c.jpg", seed=3)
    write(other, "annotations/instances_val2017.json")
    test = load(write(FIRST), "test")
    assert test.classes == ("car", "dog", "cup")
    assert test.labels.tolist() == [[0, 0, 1]]


def test_files_beside_their_images(write: Write, paint: Paint) -> None:
    for split, name in (("train", "c"), ("valid", "d")):
        paint(f"{split}/{name}.png", seed=4)
        stated = content({0: f"{name}.png"}, thing(0, 3, [1, 2, 30, 40]))
        root = write(stated, f"{split}/_annotations.coco.json")
    train, test = load(root), load(root, "test")
    assert train.target(0)["boxes"].tolist() == test.target(0)["boxes"].tolist() == [[1, 2, 31, 42]]
    assert not torch.equal(train.image(0), test.image(0)) or train.digest != test.digest


def changed(**entries: Any) -> dict[str, Any]:
    """The first file with some lists longer."""
    return FIRST | {key: [*FIRST[key], *more] for key, more in entries.items()}


@pytest.mark.parametrize(
    ("stated", "said", "images"),
    [
        (changed(annotations=[thing(7, 18, [1, 2, NAN, 4])]), "a.jpg has 1 box with a corner", 1),
        (changed(annotations=[thing(7, 18, [1, 2, 3])]), "a.jpg has 1 box that is not a list", 1),
        (changed(annotations=[thing(7, 18, "box")]), "a.jpg has 1 box that is not a list", 1),
        (changed(annotations=[thing(7, 18, None)]), "a.jpg has 1 object without a box", 1),
        (changed(annotations=[thing(7, 18, [1, 2, 0, 4])]), "a.jpg has 1 box without area", 1),
        (changed(annotations=[thing(7, 18, [99, 2, 3, 4])]), "a.jpg has 1 box without area", 1),
        (changed(annotations=[thing(7, 1, [1, 2, 3, 4])]), "has the class 'id 1', which", 1),
        (changed(annotations=[thing(7, [3], [1, 2, 3, 4])]), "class 'id [3]', which", 1),
        (changed(annotations=[thing([7], 3, [1, 2, 3, 4])]), "1 objects in images that it", 2),
        (changed(annotations=[thing(8, 3, [1, 2, 3, 4])]), "1 objects in images that it does", 2),
        (
            changed(images=[{"id": 9, "file_name": "no.jpg"}]),
            "no.jpg is listed, but there is no",
            2,
        ),
        (changed(images=[{"id": 9, "file_name": "a.jpg"}]), "a.jpg is listed twice", 2),
    ],
)
def test_faults_are_mended_left_out_or_refused(
    write: Write, stated: dict[str, Any], said: str, images: int
) -> None:
    root = write(stated)
    repaired, skipped = load(root), load(root, faulty="skip")
    assert (len(repaired), len(skipped)) == (2, images)
    for source in (repaired, skipped):
        assert said in source.skipped[0]
    assert [len(repaired.target(i)["labels"]) for i in (0, 1)] == [1, 2]
    with pytest.raises(DataError, match=r"faulty for 1 .* set data\.faulty to repair or skip"):
        load(root, faulty="fail")


def test_a_box_that_is_cut_has_the_area_that_is_left(write: Write) -> None:
    crossing = thing(7, 18, [60, 50, 40, 40], area=1000)
    source = load(write(changed(annotations=[crossing])))
    assert source.target(0)["boxes"].tolist()[1] == [60, 50, 80, 70]
    assert source.target(0)["areas"].tolist()[1] == 400


def test_images_that_no_file_lists(write: Write, paint: Paint) -> None:
    paint("train2017/c.jpg", seed=3)
    source = load(write(FIRST))
    assert source.skipped == (
        "train2017 has 1 images not in instances_train2017.json, first: c.jpg: left out",
    )
    with pytest.raises(DataError, match="not in instances_train2017"):
        load(write(FIRST), faulty="fail")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list 'images' of entries with id and file_name"),
        ({"images": [{"id": 1}]}, "has no list 'images' of entries with id and file_name"),
        (changed(images=[{"id": [1], "file_name": "c.jpg"}]), "has no list 'images' of entries"),
        (FIRST | {"annotations": []}, "None of the 2 training images in .* has an object"),
        (
            FIRST | {"annotations": [thing("a.jpg", 3, [1, 2, 3, 4])]},
            "None of the 1 annotations in",
        ),
        (FIRST | {"annotations": {}}, "has no list 'annotations' of entries, which COCO's"),
        (changed(categories=[{"id": 4, "name": "car"}]), "4 categories in .* have 3 names and 4"),
        (changed(categories=[{"id": "x", "name": "x"}]), "an integer id of its own"),
        (content({1: "no.jpg"}), r"None of the 1 images in .* exists; put them into .*train2017"),
    ],
)
def test_a_file_of_another_kind(write: Write, stated: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(stated))


def test_two_files_for_a_split_or_none(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither annotations/instances_train\*\.json nor"):
        load(tmp_path)
    write(FIRST, "annotations/instances_train2014.json")
    with pytest.raises(DataError, match=r"train2014\.json and .*train2017\.json: keep one"):
        load(write(FIRST))


def test_real_photos(unpacked: Callable[[str], Path]) -> None:
    source = load(unpacked("coco128"), faulty="fail")
    targets = [source.target(i) for i in range(len(source))]
    assert (len(source), len(source.classes)) == (128, 80)
    assert sum(int((~each["crowd"]).sum()) for each in targets) == 929
    assert sum(int(each["crowd"].sum()) for each in targets) == 10
    assert int(source.labels.any(0).sum()) == 71
    assert source.skipped == ("2 of 128 images have no object: kept as background",)


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_fruits_are_the_same_in_both_formats(
    unpacked: Callable[[str], Path], split: Any
) -> None:
    root = str(unpacked("fruits"))
    assert coco.load(root, split).digest == voc.load(root, split).digest
