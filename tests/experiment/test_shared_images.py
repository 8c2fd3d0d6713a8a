"""Images that are in two splits of one recipe are named in a warning."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.experiment.images import read_images

Paint = Callable[..., Path]


def warnings(
    caplog: pytest.LogCaptureFixture, task: str = "classification", **data: Any
) -> list[str]:
    recipe = Recipe.from_dict({"task": task, "data": data})
    with caplog.at_level(logging.WARNING, "understudy"):
        read_images(recipe, tasks.find(task))
    return [record.getMessage() for record in caplog.records]


def table(folder: Path, rows: list[str]) -> str:
    file = folder / "images.csv"
    file.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return str(file)


def test_rows_of_both_splits_and_copies_of_files_are_counted(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    files = [paint(f"{i}.png", seed=i) for i in range(4)]
    (tmp_path / "copy.png").write_bytes(files[1].read_bytes())
    train = [f"{i}.png,{'ab'[i % 2]},train" for i in range(3)]
    test = ["0.png,a,test", "copy.png,b,test", "3.png,b,test"]
    (line,) = warnings(caplog, source="csv", root=table(tmp_path, train + test))
    assert line.startswith("2 of the 3 test images are training images as well, such as ")
    assert "0.png" in line
    assert line.endswith("Remove them from the training or the test split.")


def test_files_that_differ_are_not_warned_of(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        paint(f"{i}.png", seed=i)
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 2 else 'test'}" for i in range(4)]
    assert not warnings(caplog, source="csv", root=table(tmp_path, rows))


def test_a_linked_image_and_one_that_the_epoch_is_chosen_on_are_named(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    for i, split in enumerate(("train", "val", "test")):
        for name in "ab":
            paint(f"{split}/{name}/{i}.png", size=(90, 90), seed=10 * i + ord(name))
    os.link(tmp_path / "train/a/0.png", tmp_path / "val/a/linked.png")
    os.link(tmp_path / "val/b/1.png", tmp_path / "test/b/linked.png")
    first, second = warnings(caplog, source="folder", root=str(tmp_path))
    assert first.startswith("1 of the 3 validation images is a training image as well")
    assert second.startswith("1 of the 3 test images is a validation image as well")
    assert "the best epoch is chosen by them" in second


def test_a_validation_split_that_is_the_training_split_is_said_with_the_fix(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(2):
        paint(f"images/{i}.png", size=(90, 90), seed=i)
        label = tmp_path / f"labels/{i}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    (line,) = warnings(caplog, "detection", source="yolo", root=str(tmp_path))
    assert line.startswith("All 2 test images are training images as well, such as ")
    assert "data.validation" in line


def test_rows_of_a_hugging_face_data_set_are_compared_by_their_bytes(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    datasets = pytest.importorskip("datasets")
    content = [paint(f"{i}.png", seed=i).read_bytes() for i in range(3)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    parts = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": content[i], "path": None} for i in rows], "label": [0, 1]},
            features=features,
        )
        for name, rows in {"train": (0, 1), "test": (1, 2)}.items()
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    (line,) = warnings(caplog, source="hf", root=str(tmp_path / "saved"))
    assert line.startswith("1 of the 2 test images is a training image as well, such as image 0")


def test_images_in_memory_are_compared_by_their_pixels(
    tmp_path: Path, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    for i, split in enumerate(("train", "test")):
        for j, name in enumerate("ab"):
            paint(f"{split}/{name}/{i}.png", size=(32, 32), seed=10 * i + j)
    # The same picture in another file: other bytes, equal pixels.
    with Image.open(tmp_path / "train/a/0.png") as picture:
        picture.save(tmp_path / "test/a/copy.bmp")
    (line,) = warnings(caplog, source="folder", root=str(tmp_path))
    assert line.startswith("1 of the 3 test images is a training image as well, such as ")
    assert "copy.bmp" in line


@pytest.mark.parametrize("source", ["fashion", "drawn_shapes"])
def test_shipped_images_share_none(source: str, caplog: pytest.LogCaptureFixture) -> None:
    root = {"root": "30"} if source == "drawn_shapes" else {}
    assert not warnings(caplog, "none", source=source, **root)


def test_the_record_of_the_splits_says_how_many_are_shared(tmp_path: Path, paint: Paint) -> None:
    files = [paint(f"{i}.png", seed=i) for i in range(3)]
    rows = [f"{file.name},{'ab'[i % 2]},train" for i, file in enumerate(files)]
    rows += [f"{files[0].name},a,val", f"{files[0].name},a,test", f"{files[1].name},b,test"]
    data = {"source": "csv", "root": table(tmp_path, rows)}
    counts = read_images(Recipe.from_dict({"data": data}), tasks.find("classification")).counts()
    assert counts["validation"] is not None
    assert counts["validation"]["origin"] == "csv: val, all of them training images too"
    assert counts["test"] is not None
    assert counts["test"]["origin"] == (
        "csv: test, all of them training images too; 1 of them validation images too"
    )
