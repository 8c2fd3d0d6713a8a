"""Where annotations and images lie: the folders that programs write, and what is ambiguous."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from understudy.data.sources import coco, load_validation, voc
from understudy.data.sources._splits import NoSplit
from understudy.errors import DataError

Paint = Callable[..., Path]
XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>"
    "<ymax>40</ymax></bndbox></object></annotation>"
)


def write(root: Path, name: str, images: Sequence[str]) -> None:
    """A JSON file of some images, each with a box."""
    content = {
        "images": [{"id": i, "file_name": image} for i, image in enumerate(images)],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": [1, 2, 29, 38]} for i in range(len(images))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


JSON_LAYOUTS: dict[str, list[tuple[str, str, str]]] = {
    # JSON file, name of the image in it, and where the image lies
    "COCO": [
        ("annotations/instances_train2017.json", "a.jpg", "train2017/a.jpg"),
        ("annotations/instances_val2017.json", "b.jpg", "val2017/b.jpg"),
    ],
    "CVAT": [
        ("annotations/instances_train.json", "a.jpg", "images/train/a.jpg"),
        ("annotations/instances_test.json", "b.jpg", "images/test/b.jpg"),
    ],
    "one folder of images": [
        ("annotations/train.json", "a.jpg", "images/a.jpg"),
        ("annotations/val.json", "b.jpg", "images/b.jpg"),
    ],
    "beside a folder of images": [
        ("train.json", "a.jpg", "images/a.jpg"),
        ("test.json", "b.jpg", "images/b.jpg"),
    ],
    "Roboflow": [
        ("train/_annotations.coco.json", "a.jpg", "train/a.jpg"),
        ("valid/_annotations.coco.json", "b.jpg", "valid/b.jpg"),
    ],
    "FiftyOne": [
        ("train/labels.json", "a.jpg", "train/data/a.jpg"),
        ("test/labels.json", "b.jpg", "test/data/b.jpg"),
    ],
    "mmdetection": [
        ("annotations/train_coco.json", "train/a.jpg", "train/a.jpg"),
        ("annotations/custom-val.json", "val/b.jpg", "val/b.jpg"),
    ],
    "one folder for each split": [
        ("train/annotations/instances_default.json", "a.jpg", "train/images/a.jpg"),
        ("val/annotations/instances_default.json", "b.jpg", "val/images/b.jpg"),
    ],
    "names of VOC in JSON": [
        ("annotations/voc07_trainval.json", "a.jpg", "JPEGImages/a.jpg"),
        ("annotations/voc07_test.json", "b.jpg", "JPEGImages/b.jpg"),
    ],
    "relative to the JSON file": [
        ("annotations/train.json", "../photos/a.jpg", "photos/a.jpg"),
        ("annotations/val.json", "..\\photos\\b.jpg", "photos/b.jpg"),
    ],
}


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
def test_json_of_two_splits(layout: str, tmp_path: Path, paint: Paint) -> None:
    for seed, (name, image, path) in enumerate(JSON_LAYOUTS[layout]):
        paint(path, seed=seed)
        write(tmp_path, name, [image])
    train, test = (coco.load(str(tmp_path), split, faulty="fail") for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (1, 1, ("cat",))
    assert train.images_digest != test.images_digest
    assert coco.load(str(tmp_path), "test", classes=("cat",)).digest == test.digest
    with pytest.raises(NoSplit, match="no validation split beside a test split"):
        coco.load(str(tmp_path), "validation")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("annotations/instances_default.json", "images/a.jpg"),
        ("annotations/instances_default.json", "images/default/a.jpg"),
        ("result.json", "images/a.jpg"),
        ("labels.json", "data/a.jpg"),
        ("_annotations.coco.json", "a.jpg"),
        ("mine.json", "a.jpg"),
    ],
)
def test_one_json_file_is_for_training(name: str, image: str, tmp_path: Path, paint: Paint) -> None:
    paint(image)
    write(tmp_path, name, ["a.jpg"])
    expected = coco.load(str(tmp_path), "train", faulty="fail").digest
    for root in (tmp_path, tmp_path / name):
        assert coco.load(str(root), "train").digest == expected
        with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
            coco.load(str(root), "test")


def test_three_splits_of_json(tmp_path: Path, paint: Paint) -> None:
    for split in ("train", "valid", "test"):
        paint(f"{split}/{split}.jpg")
        write(tmp_path, f"{split}/_annotations.coco.json", [f"{split}.jpg"])
    source = load_validation("coco", str(tmp_path), classes=("cat",))
    assert source is not None
    assert source.digest not in {coco.load(str(tmp_path), s).digest for s in ("train", "test")}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train.json", "instances_train.json"), r"instances_train\.json and train\.json: keep"),
        (("labels.json", "result.json"), r"labels\.json and result\.json: keep one file for .*tra"),
        (("train.json", "val.json", "valid.json"), "val and valid could each be the test split"),
        (("test.json", "labels.json"), r"neither .* in its name, only test\.json; set data\.root"),
        (("a.json", "b.json"), r"a\.json and b\.json: keep one file for the split 'train', or set"),
    ],
)
def test_files_that_could_be_of_one_split(
    names: tuple[str, ...], message: str, tmp_path: Path, paint: Paint
) -> None:
    paint("images/a.jpg")
    for name in names:
        write(tmp_path, name, ["a.jpg"])
    with pytest.raises(DataError, match=message):
        coco.load(str(tmp_path), "test" if "could each" in message else "train")


def test_files_that_coco_publishes_beside_those_with_boxes(tmp_path: Path, paint: Paint) -> None:
    paint("train2017/a.jpg")
    write(tmp_path, "annotations/instances_train2017.json", ["a.jpg"])
    for other in ("captions_train2017", "person_keypoints_train2017", "image_info_test2017"):
        (tmp_path / f"annotations/{other}.json").write_text("{}")
    (tmp_path / "train2017/meta.json").write_text("{}")
    assert len(coco.load(str(tmp_path), "train", faulty="fail")) == 1


def test_of_two_folders_that_with_most_images_is_taken(tmp_path: Path, paint: Paint) -> None:
    for name in ("images/a", "data/a", "data/b"):
        paint(f"{name}.jpg")
    write(tmp_path, "train.json", ["a.jpg", "b.jpg"])
    assert len(coco.load(str(tmp_path), "train", faulty="fail")) == 2


OUTSIDE = ["../../x.jpg", "/etc/x.jpg", "C:\\photos\\x.jpg", "a/../../../x.jpg", "..\\..\\x.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("file", ["annotations/train.json", "train/_annotations.coco.json"])
def test_json_that_names_files_elsewhere(
    file: str, name: str, tmp_path: Path, paint: Paint
) -> None:
    paint("x.jpg")
    top = tmp_path / "top"
    paint("top/train/a.jpg")
    write(top, file, ["a.jpg", name])
    with pytest.raises(DataError, match=r"names '.*x\.jpg', which is outside of the data set's"):
        coco.load(str(top), "train")
    with pytest.raises(DataError, match=r"which is outside of the data set's folder"):
        coco.load(str(top / file), "train")


def test_a_list_of_voc_that_names_files_elsewhere(tmp_path: Path, paint: Paint) -> None:
    lists = tmp_path / "top/ImageSets/Main"
    lists.mkdir(parents=True)
    paint("x.jpg")
    (tmp_path / "x.xml").write_text(XML)
    (lists / "train.txt").write_text("\n../../x\n")
    message = r"train\.txt, line 2, names '\.\./\.\./x\.xml', which is outside of the data set's"
    with pytest.raises(DataError, match=message):
        voc.load(str(tmp_path / "top"), "train")


def test_the_file_name_in_xml_is_never_opened(tmp_path: Path, paint: Paint) -> None:
    paint("x.jpg")
    paint("top/train/a.jpg", seed=1)
    hostile = "<filename>../../x.jpg</filename><path>/etc/x.jpg</path><object>"
    (tmp_path / "top/train/a.xml").write_text(XML.replace("<object>", hostile))
    (tmp_path / "top/train/b.xml").write_text(XML.replace("<object>", hostile))
    source = voc.load(str(tmp_path / "top"), "train")
    assert len(source) == 1
    assert source.skipped == ("train/b.xml has no image of this name: left out",)


def test_names_that_no_file_can_have(tmp_path: Path, paint: Paint) -> None:
    paint("images/a.jpg")
    (tmp_path / "images/self.jpg").symlink_to("self.jpg")
    write(tmp_path, "train.json", ["a.jpg", "b\0.jpg", "c" * 5000 + ".jpg", "self.jpg", ""])
    source = coco.load(str(tmp_path), "train")
    assert len(source) == 1
    assert ["there is no such file" in line for line in source.skipped] == [True] * 4


XML_LAYOUTS: dict[str, list[tuple[str, str]]] = {
    "beside": [("train/a.jpg", "train/a.xml"), ("test/b.jpg", "test/b.xml")],
    "two folders in each split": [
        ("train/images/a.jpg", "train/annotations/a.xml"),
        ("valid/images/b.jpg", "valid/annotations/b.xml"),
    ],
    "capital letters": [
        ("train/JPEGImages/a.jpg", "train/Annotations/a.XML"),
        ("test/JPEGImages/b.jpg", "test/Annotations/b.xml"),
    ],
    "splits in each folder": [
        ("images/train/a.jpg", "annotations/train/a.xml"),
        ("images/val/b.jpg", "annotations/val/b.xml"),
    ],
    "annotations of all splits in one folder": [
        ("train/a.jpg", "annotations/train/a.xml"),
        ("test/b.jpg", "annotations/test/b.xml"),
    ],
}


@pytest.mark.parametrize("layout", XML_LAYOUTS)
def test_xml_of_two_splits(layout: str, tmp_path: Path, paint: Paint) -> None:
    for seed, (image, xml) in enumerate(XML_LAYOUTS[layout]):
        paint(image, seed=seed)
        (tmp_path / xml).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / xml).write_text(XML)
    train, test = (voc.load(str(tmp_path), split, faulty="fail") for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (1, 1, ("cat",))
    assert train.target(0)["boxes"].tolist() == [[1, 2, 30, 40]]
    assert train.images_digest != test.images_digest
    assert load_validation("voc", str(tmp_path)) is None


@pytest.mark.parametrize(
    ("image", "xml"),
    [
        ("a.jpg", "a.xml"),
        ("images/a.jpg", "annotations/a.xml"),
        ("JPEGImages/a.jpg", "Annotations/a.xml"),
        ("images/a.jpg", "images/a.xml"),
    ],
)
def test_xml_of_training_alone(image: str, xml: str, tmp_path: Path, paint: Paint) -> None:
    paint(image)
    (tmp_path / xml).parent.mkdir(exist_ok=True)
    (tmp_path / xml).write_text(XML)
    assert len(voc.load(str(tmp_path), "train", faulty="fail")) == 1
    with pytest.raises(DataError, match=r"no test split .* set data\.validation"):
        voc.load(str(tmp_path), "test")


def test_three_splits_of_xml(tmp_path: Path, paint: Paint) -> None:
    for split in ("train", "val", "test"):
        paint(f"{split}/{split}.jpg")
        (tmp_path / split / f"{split}.xml").write_text(XML)
    source = load_validation("voc", str(tmp_path))
    assert source is not None
    assert source.digest not in {voc.load(str(tmp_path), s).digest for s in ("train", "test")}
    (tmp_path / "val").rename(tmp_path / "valid")
    (tmp_path / "test").rename(tmp_path / "validation")
    with pytest.raises(DataError, match="valid and validation could each be the test split"):
        voc.load(str(tmp_path), "test")


def devkit(root: Path, paint: Paint, **lists: Sequence[Any]) -> str:
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for name, images in lists.items():
        (root / f"ImageSets/Main/{name}.txt").write_text("\n".join(map(str, images)))
        for image in images:
            paint(f"JPEGImages/{image}.jpg")
            (root / f"Annotations/{image}.xml").write_text(XML.replace("cat", "person"))
    return str(root)


def test_lists_of_three_splits(tmp_path: Path, paint: Paint) -> None:
    root = devkit(tmp_path, paint, train=[1, 2], val=[3], test=[4, 5])
    sizes = [len(voc.load(root, split)) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert sizes == [2, 1, 2]


def test_lists_of_other_names(tmp_path: Path, paint: Paint) -> None:
    root = devkit(tmp_path, paint, default=[1, 2])
    assert len(voc.load(root, "train")) == 2
    (tmp_path / "ImageSets/Main/valid.txt").write_text("2.jpg\n")
    assert len(voc.load(root, "test")) == 1


def test_images_that_are_trained_on_are_no_validation_split(tmp_path: Path, paint: Paint) -> None:
    root = devkit(tmp_path, paint, train=[1], val=[3], trainval=[1, 3], test=[4])
    assert len(voc.load(root, "train")) == 2
    assert load_validation("voc", root) is None
    with pytest.raises(NoSplit, match=r"val\.txt are in trainval\.txt too, which is trained on"):
        voc.load(root, "validation")


def test_class_names_are_compared_as_elsewhere(tmp_path: Path, paint: Paint) -> None:
    for split, name in (("train", "traffic light"), ("test", "Traffic_Light")):
        paint(f"{split}/a.jpg")
        (tmp_path / split / "a.xml").write_text(XML.replace("cat", name))
    source = voc.load(str(tmp_path), "test", faulty="fail")
    assert (source.classes, source.labels.tolist()) == (("traffic light",), [[1]])
