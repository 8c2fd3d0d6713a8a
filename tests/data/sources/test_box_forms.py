"""Boxes and class numbers in another form than the format says are refused, not clipped."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.data.sources import Source, coco, csv, yolo
from understudy.errors import DataError
from understudy.experiment.images import read_images

Paint = Callable[..., Path]
Boxes = Sequence[tuple[float, ...]]


def of_coco(folder: Path, paint: Paint, boxes: Boxes) -> Source:
    for split in ("train", "val"):
        for i in range(len(boxes)):
            paint(f"{split}/{i}.jpg", size=(100, 100))
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(len(boxes))]
        objects = [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [100 * x for x in box]}
            for i, box in enumerate(boxes)
        ]
        content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return coco.load(str(folder), "train")


def of_yolo(folder: Path, paint: Paint, boxes: Boxes, labels: Sequence[int] = ()) -> Source:
    for i, box in enumerate(boxes):
        paint(f"images/{i}.jpg", size=(100, 100))
        label = folder / f"labels/{i}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"{labels[i] if labels else 0} {' '.join(map(str, box))}\n")
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    return yolo.load(str(folder), "train")


CORNERS = [(0.5, 0.5, 0.9, 0.8), (0.1, 0.6, 0.95, 0.99), (0.05, 0.05, 0.2, 0.3)]
SIZES = [(0.5, 0.5, 0.3, 0.2), (0.6, 0.7, 0.9, 0.9), (0.4, 0.3, 0.1, 0.2)]


@pytest.mark.parametrize("load", [of_coco, of_yolo])
def test_corners_for_sizes_are_refused(
    tmp_path: Path, paint: Paint, load: Callable[..., Source]
) -> None:
    with pytest.raises(DataError, match=r"2 of the 3 boxes .* all fit if they are two corners"):
        load(tmp_path, paint, CORNERS)


@pytest.mark.parametrize("load", [of_coco, of_yolo])
def test_a_box_that_leaves_its_image_is_clipped(
    tmp_path: Path, paint: Paint, load: Callable[..., Source]
) -> None:
    source = load(tmp_path, paint, SIZES)
    assert len(source) == 3
    assert any("partly outside" in line for line in source.skipped)


def test_classes_that_are_counted_from_one_are_refused(tmp_path: Path, paint: Paint) -> None:
    with pytest.raises(DataError, match="number 2 classes from 1: none has the class 0, and some"):
        of_yolo(tmp_path, paint, SIZES, [1, 2, 1])
    assert len(of_yolo(tmp_path, paint, SIZES, [1, 1, 1])) == 3
    assert len(of_yolo(tmp_path, paint, SIZES, [0, 1, 2])) == 2


def warnings(
    folder: Path, paint: Paint, caplog: pytest.LogCaptureFixture, *labels: str
) -> list[str]:
    rows = [f"{paint(f'{i}.png', seed=i).name},{label}" for i, label in enumerate(labels)]
    (folder / "images.csv").write_text("\n".join(["path,label", *rows, *rows]) + "\n")
    data = {"source": "csv", "root": str(folder / "images.csv"), "validation": 0.5}
    with caplog.at_level(logging.WARNING, "understudy"):
        read_images(Recipe.from_dict({"data": data}), tasks.find("classification"))
    return [r.getMessage() for r in caplog.records if "as well" not in r.getMessage()]


def test_labels_that_run_from_one_are_warned_of(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = warnings(tmp_path, paint, caplog, "1", "2", "3", "4", "5")
    assert line.startswith("The labels run from 1 to 5, so that class 0 has no image")
    assert csv.load(str(tmp_path / "images.csv"), "train").classes == tuple("012345")


def test_names_that_differ_in_spelling_alone_are_warned_of(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = warnings(tmp_path, paint, caplog, "Great Dane", "great_dane", "pug", "Pug", "cat")
    assert line.startswith("The classes 'Great Dane' and 'great_dane' differ only in case")
    assert "(and 1 more)" in line
