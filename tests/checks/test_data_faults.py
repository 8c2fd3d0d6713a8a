"""Faults of the data, each planted in two data sets or tasks: found, with the fix that mends it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.planted_faults import Fault, assert_found_and_mended, pictures
from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN

EVEN = {"cat": 12, "dog": 12}


def folder(root: Path, **data: Any) -> dict[str, Any]:
    return {"data": {"source": "folder", "root": str(root), **data}}


def uneven(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN, split="test", seed=1)
    return folder(pictures(root, {"cat": 120, "dog": 12}))


def few(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN, split="test", seed=1)
    return folder(pictures(root, {"cat": 12, "dog": 3}))


def one_class(root: Path) -> Mapping[str, Any]:
    pictures(root, {"cat": 4}, split="test", seed=1)
    return folder(pictures(root, {"cat": 12}))


def table(root: Path, rows: list[tuple[str, str, str]]) -> str:
    """A table of pictures, by which one class can be absent from a split."""
    lines = ["path,label,split", *(",".join(row) for row in rows)]
    (root / "table.csv").write_text("\n".join(lines))
    return str(root / "table.csv")


def untested_class(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN)
    rows = [
        (f"train/{name}/{n:03}.png", name, "test" if name == "cat" and n < 2 else "train")
        for name in EVEN
        for n in range(12)
    ]
    return {"data": {"source": "csv", "root": table(root, rows)}}


def untested_shape(root: Path) -> Mapping[str, Any]:
    return {"task": "multilabel", "data": {"source": "drawn_shapes", "root": "9"}}


def unlabelled_tests(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN)
    rows = [
        (f"train/{name}/{n:03}.png", "" if n == 1 else name, "test" if n < 4 else "train")
        for name in EVEN
        for n in range(12)
    ]
    return {"data": {"source": "csv", "root": table(root, rows)}}


def damaged(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN)
    pictures(root, EVEN, split="test", seed=1)
    for number in range(3):
        (root / "train" / "cat" / f"{number:03}.png").write_bytes(b"no picture")
    return folder(root)


def copies(root: Path) -> Mapping[str, Any]:
    """A test picture in two is a training picture, smaller and compressed."""
    pictures(root, EVEN)
    pictures(root, {"cat": 6, "dog": 6}, split="test", seed=1)
    for number in range(6):
        with Image.open(root / "train" / "cat" / f"{number:03}.png") as image:
            image.resize((32, 32)).save(root / "test" / "cat" / f"copy{number}.jpg", quality=70)
    return folder(root)


def clothes_copies(root: Path) -> Mapping[str, Any]:
    """Brighter and mirrored copies of clothes, whose ground is flat."""
    shutil.copytree(CLOTHES, root, dirs_exist_ok=True)
    for number, file in enumerate(sorted((root / "train" / "coat").iterdir())[:4]):
        with Image.open(file) as image:
            brighter = image.point(lambda value: min(255, int(1.1 * value)))
            mirrored = brighter.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mirrored.save(root / "test" / "coat" / f"copy{number}.bmp")
    return folder(root)


def enlarged(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN, split="test", seed=1, sides=(70, 64))
    return folder(pictures(root, EVEN, sides=(70, 64)), size=224, augment="resized_crop")


def enlarged_shapes(root: Path) -> Mapping[str, Any]:
    return {"task": "multilabel", "data": {"source": "drawn_shapes", "root": "60", "size": 160}}


def long_pictures(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN, split="test", seed=1, sides=(160, 40))
    return folder(pictures(root, EVEN, sides=(160, 40)), size=32, augment="resized_crop")


def high_pictures(root: Path) -> Mapping[str, Any]:
    pictures(root, EVEN, split="test", seed=1, sides=(30, 90))
    return folder(pictures(root, EVEN, sides=(30, 90)), size=32, augment="crop_flip")


FAULTS = [
    Fault(
        "rare class",
        "classes",
        uneven,
        ["10 times as many", "120 and 12", "dog"],
        {"data.balance": 0.5},
    ),
    Fault(
        "rare class among few labels",
        "classes",
        lambda root: {"data": {**uneven(root)["data"], "labelled_share": 0.5}},
        ["10 times as many", "120 and 12", "dog"],
        {"training.class_weights": "balanced"},
    ),
    Fault("few pictures", "classes", few, ["1 of 2 classes has fewer than 10", "dog (3)"]),
    Fault(
        "few labels of clothes",
        "classes",
        lambda root: folder(Path(CLOTHES), labels=20),
        ["All 10 classes have fewer than 10"],
        {"data.labels": 100},
    ),
    Fault(
        "few images of clothes",
        "classes",
        lambda root: folder(Path(CLOTHES), images=30),
        ["All 10 classes have fewer than 10"],
        {"data.images": 100},
    ),
    Fault(
        "one class", "classes", one_class, ["All 12", "belong to one class, 'cat'"], level="error"
    ),
    Fault("untested class", "classes", untested_class, ["1 of 2 classes is not in the 2", "dog"]),
    Fault("untested shapes", "classes", untested_shape, ["of 6 classes are not in the 3 test"]),
    Fault("tests without labels", "labels", unlabelled_tests, ["6 of 8 test images"]),
    Fault(
        "few labelled images in a batch",
        "labels",
        lambda root: {
            **folder(Path(CLOTHES), labels=60),
            "student": {"name": CNN},
            "teacher": {"name": CNN},
            "methods": {"kd": {}},
        },
        ["holds 1.6 labelled images on average", "10.0 %"],
        {"data.labelled_share": 0.5},
    ),
    Fault("damaged files", "skipped", damaged, ["3 images skipped", "cat"]),
    Fault("smaller copies", "near_duplicates", copies, ["6 test images are nearly training"]),
    Fault("mirrored clothes", "near_duplicates", clothes_copies, ["4 test images are nearly"]),
    Fault(
        "enlarged pictures",
        "picture_sizes",
        enlarged,
        ["at most 64 pixels", "enlarged to 224", "12 times as long"],
        {"data.size": 64},
    ),
    Fault(
        "enlarged shapes",
        "picture_sizes",
        enlarged_shapes,
        ["at most 96 pixels", "enlarged to 160"],
        {"data.size": 96},
    ),
    Fault(
        "long pictures",
        "picture_sizes",
        long_pictures,
        ["100 % of the pictures are more than 2.5 times as long"],
        {"data.augment": "squash_flip"},
    ),
    Fault(
        "high pictures",
        "picture_sizes",
        high_pictures,
        ["100 % of the pictures are more than 2.5 times as long"],
        {"data.augment": "squash_flip"},
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_found_with_the_fix_that_mends_it(fault: Fault, tmp_path: Path) -> None:
    assert_found_and_mended(fault, tmp_path)
