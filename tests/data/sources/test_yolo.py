"""Boxes in text files: how data.yaml names images, what a line holds, and what can be wrong."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from understudy.data import Source
from understudy.data.sources import load_validation, yolo
from understudy.data.sources._splits import NoSplit
from understudy.errors import DataError

Paint = Callable[..., Path]
# Pictures are 80 × 70 pixels.
CAT, CAT_BOX = "0 0.5 0.5 0.5 0.4", [20, 21, 60, 49]


@pytest.fixture
def root(tmp_path: Path, paint: Paint) -> Path:
    """Two training images, with a cat and with none, and one of a dog in val."""
    for seed, name in enumerate(("train/a", "train/b", "val/c")):
        paint(f"images/{name}.png", seed=seed)
    label(tmp_path, "train/a", CAT)
    label(tmp_path, "val/c", "1 0.5 0.5 1 1")
    describe(tmp_path, "path: .", "train: images/train", "val: images/val", "names: [cat, dog]")
    return tmp_path


def label(root: Path, name: str, *lines: str) -> None:
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def describe(root: Path, *lines: str, name: str = "data.yaml") -> None:
    (root / name).write_text("\n".join(lines))


def load(root: Path, split: Any = "train", **choices: Any) -> Source:
    return yolo.load(str(root), split, **choices)


def boxes(source: Source, i: int) -> list[list[float]]:
    return source.target(i)["boxes"].tolist()  # type: ignore[no-any-return]


def test_shares_become_pixels_and_no_file_is_background(root: Path) -> None:
    train, test = load(root, faulty="fail"), load(root, "test", faulty="fail")
    assert train.classes == test.classes == ("cat", "dog")
    assert (boxes(train, 0), boxes(train, 1)) == ([CAT_BOX], [])
    assert (boxes(test, 0), test.labels.tolist()) == ([[0, 0, 80, 70]], [[0, 1]])
    assert train.target(0)["areas"].tolist() == [40 * 28]
    assert train.skipped == ("1 of 2 images have no object: kept as background",)


@pytest.mark.parametrize(
    "lines",
    [
        ("names: {0: cat, 1: dog}", "train: images/train", "val: images/val"),
        ("names: [cat, dog]", "nc: 2", "train: ../images/train", "val: [images/val]", "test:"),
        ("path: /somewhere/else", "names: [cat, dog]", "train: [images/train]", "val: images/val"),
        ("path: images", "names: [cat, dog]", "train: train", "val: val"),
        ("names: [cat, dog]", "train: all.txt", "val: images/val"),
    ],
)
def test_forms_of_the_description(root: Path, lines: tuple[str, ...]) -> None:
    expected = load(root).digest, load(root, "test").digest
    (root / "all.txt").write_text("./images/train/a.png\nimages/train/b.png\n\n")
    describe(root, *lines)
    assert (load(root).digest, load(root, "test").digest) == expected
    (root / "data.yaml").rename(root / "mine.yaml")
    assert load(root / "mine.yaml").digest == load(root).digest == expected[0]


def test_three_splits(root: Path, paint: Paint) -> None:
    assert load_validation("yolo", str(root)) is None
    with pytest.raises(NoSplit, match="no validation split beside a test split"):
        load(root, "validation")
    paint("images/test/d.png", seed=9)
    label(root, "test/d", CAT)
    describe(root, "train: images/train", "val: images/val", "test: images/test", "nc: 2")
    validation = load_validation("yolo", str(root))
    assert validation is not None
    assert (validation.labels.tolist(), validation.classes) == ([[0, 1]], ("0", "1"))
    assert load(root, "test").labels.tolist() == [[1, 0]]


def test_layout_of_roboflow(tmp_path: Path, paint: Paint) -> None:
    for split in ("train", "valid"):
        paint(f"{split}/images/a.jpg", seed=1)
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels/a.txt").write_text(CAT)
    describe(tmp_path, "train: ../train/images", "val: ../valid/images", "nc: 1", "names: ['cat']")
    assert boxes(load(tmp_path), 0) == boxes(load(tmp_path, "test"), 0) == [CAT_BOX]


def test_labels_beside_images(tmp_path: Path, paint: Paint) -> None:
    for name in ("all/a", "images/b"):
        paint(f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_text(CAT)
    describe(tmp_path, "train: [all, images]", "names: [cat]")
    source = load(tmp_path, faulty="fail")
    assert (boxes(source, 0), boxes(source, 1)) == ([CAT_BOX], [CAT_BOX])


def test_polygons_and_keypoints(root: Path) -> None:
    label(root, "train/a", "0 0.25 0.3 0.75 0.3 0.75 0.7 0.25 0.5", CAT)
    assert boxes(load(root), 0) == [CAT_BOX]
    label(root, "train/a", f"{CAT} 0.1 0.1 2 0.9 0.95 1")
    label(root, "train/b", CAT)
    assert "1 object whose polygon leaves its image (keypoints need kpt_shape in" in str(
        load(root).skipped
    )
    describe(root, "train: images/train", "names: [cat]", "kpt_shape: [2, 3]")
    label(root, "train/b")
    assert boxes(load(root, faulty="fail"), 0) == [CAT_BOX]


def test_names_are_read_as_they_are_written(root: Path) -> None:
    describe(root, "train: images/train", "names: [no, 010]")
    assert load(root).classes == ("no", "010")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.5 0.4", "1 object with the class 2, but names are 0 to 1"),
        ("-1 0.5 0.5 0.5 0.4", "1 object with the class -1, but names are 0 to 1"),
        ("cat 0.5 0.5 0.5 0.4", "1 object with the class 'cat', which is no number"),
        ("0 0.5 0.5 0.5", "1 object with 4 values in its line"),
        ("0 0.5 0.5 0.5 0.4 0.97", "1 object with 6 values in its line"),
        ("0 40 35 20 20", "1 box in pixels instead of shares of the image's sides"),
        ("0 0.5 0.5 0.5 nan", "1 box with a corner that is not a number"),
        ("0 0.5 0.5 0 0.4", "1 box without area in the image"),
        ("0 1.5 0.5 0.5 0.4", "1 box without area in the image"),
    ],
)
def test_a_faulty_line_is_named_and_never_background(root: Path, line: str, reason: str) -> None:
    label(root, "train/b", CAT, line)
    source = load(root)
    assert boxes(source, 1) == [CAT_BOX]
    assert f"images/train/b.png has {reason}" in source.skipped[0]
    assert source.skipped[0].endswith(": repaired")
    label(root, "train/b", line)
    source = load(root)
    assert (len(source), len(source.skipped)) == (1, 1)
    assert reason in source.skipped[0]
    assert source.skipped[0].endswith("and has no other box: left out")
    with pytest.raises(DataError, match="faulty for 1 images or files, first: images/train/b"):
        load(root, faulty="fail")


def test_other_spellings_of_numbers_are_read(root: Path) -> None:
    label(root, "train/a", "0.0 5e-1 0,5 .5 0,40")
    assert boxes(load(root, faulty="fail"), 0) == [CAT_BOX]
    label(root, "train/a", "0 0.5 0.5 -0.5 0.4", CAT)
    source = load(root)
    assert boxes(source, 0) == [CAT_BOX]
    assert "1 box with corners in the wrong order and has 1 box listed twice" in str(source.skipped)


def test_files_without_partner(root: Path, paint: Paint) -> None:
    paint("images/train/a.jpg", seed=7)
    label(root, "train/gone", CAT)
    (root / "labels/train/classes.txt").write_text("cat\ndog\n")
    assert load(root).skipped[:2] == (
        "images/train/a.png shares a.txt with a.jpg: left out",
        "labels/train has 1 label files without image, first: gone.txt: left out",
    )


def test_a_label_file_that_cannot_be_read_is_no_background(root: Path) -> None:
    (root / "labels/train/b.txt").symlink_to("b.txt")
    source = load(root)
    assert len(source) == 1
    assert "images/train/b.png has a label file that cannot be read" in source.skipped[0]
    (root / "labels/train/b.txt").unlink()
    (root / "labels/train/b.txt").write_bytes(b"\xff\xfe0 ")
    assert "images/train/b.png has a label file that cannot be read" in load(root).skipped[0]


def test_two_label_files_of_an_image(root: Path) -> None:
    (root / "images/train/a.txt").write_text(CAT)
    assert load(root).skipped[0] == "images/train/a.png is listed twice: left out"
    (root / "images/train/a.txt").write_text("1 0.5 0.5 0.1 0.1")
    label(root, "train/b", CAT)
    source = load(root)
    assert len(source) == 1
    assert source.skipped[0] == "images/train/a.png has two annotations that differ: left out"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("train: images/train",), "has no class names: write them as in"),
        (("train: images/train", "names: [cat, [dog]]"), "has no class names"),
        (("train: images/train", "names: [cat, cat]"), "names the class 'cat' twice"),
        (("train: images/train", "names: {1: cat, 2: dog}"), "numbers its classes 1, 2; number"),
        (("train: images/train", "names: [cat]", "nc: 2"), "has nc: 2, but 1 names"),
        (("names: [cat, dog]",), "names no images for 'train'"),
        (("names: [a]", "train: nowhere"), "nowhere is no folder of images and no list"),
        (("names: [a]", "path: /etc", "train: nowhere"), "path: '/etc' is no folder inside of"),
        (("names: [a]", "train: {a: b}"), "value of 'train' that is neither a folder nor a list"),
        (("names: [a]", "train: /etc"), "names '/etc', which is outside of the data set's folder"),
        (("names: [a]", "train: list.txt"), "line 2, names '/etc/a.png', which is outside of"),
        (("names: [a]", "train: x", "train: y"), "the key 'train' is given twice"),
        (("names: [a]", "train: images/train", "kpt_shape: 3"), "kpt_shape that is no list of two"),
        (("- a",), "has no keys; it needs 'names' and 'train'"),
        (("a: [",), "is not YAML"),
    ],
)
def test_descriptions_that_are_refused(root: Path, lines: tuple[str, ...], message: str) -> None:
    (root / "list.txt").write_text("images/train/a.png\n/etc/a.png\n")
    describe(root, *lines)
    with pytest.raises(DataError, match=message):
        load(root)


@pytest.mark.parametrize("name", ["names", "train", "kpt_shape", "path", "nc"])
def test_aliases_of_aliases_are_not_expanded(root: Path, name: str) -> None:
    grown = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi")]
    lines = {"names": "names: [cat, dog]", "train": "train: images/train"} | {name: f"{name}: *i"}
    describe(root, "a: &a [x, x]", *grown, *lines.values())
    with pytest.raises(
        DataError, match=rf"has no class names|of '{name}' that is|has a {name} that"
    ):
        load(root)


def test_no_label_file_at_all(root: Path) -> None:
    for path in root.glob("labels/*/*.txt"):
        path.unlink()
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"has a label file, such as .*labels.*\.txt for"):
            load(root, split)


def test_no_description_or_several(root: Path) -> None:
    (root / "data.yaml").rename(root / "a.yaml")
    assert len(load(root)) == 2
    describe(root, "names: [cat]", name="b.yml")
    with pytest.raises(DataError, match=r"has a\.yaml and b\.yml: set data\.root to the right"):
        load(root)
    with pytest.raises(DataError, match=r"has no data\.yaml; write one"):
        load(root / "images")
