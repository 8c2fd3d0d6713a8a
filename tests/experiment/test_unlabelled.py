"""Images without labels that join the training images, of a folder beside `train` or elsewhere."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from understudy import tasks
from understudy.batch import UNLABELLED
from understudy.config.recipe import Recipe
from understudy.data import MemorySource
from understudy.errors import DataError, RecipeError
from understudy.experiment.images import Images, read_images, read_test_images
from understudy.experiment.loaders import Loaders


def paint(folder: Path, count: int, side: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = draw.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, split in enumerate(("train", "test")):
        for label, name in enumerate("ab"):
            paint(tmp_path / "images" / split / name, 6, 8, 10 * place + label)
    return tmp_path / "images"


def read(root: Path, task: str = "classification", **data: Any) -> Images:
    recipe = Recipe.from_dict(
        {"task": task, "data": {"source": "folder", "root": str(root), **data}}
    )
    return read_images(recipe, tasks.find(task))


def test_a_folder_beside_train_joins(root: Path, caplog: Any) -> None:
    plain = read(root)
    paint(root / "unlabelled" / "of" / "yesterday", 5, 8, 99)
    with caplog.at_level(logging.INFO, "understudy"):
        joined = read(root)
    assert "5 images of" in caplog.text
    train = joined.train
    assert isinstance(train, MemorySource)
    assert train.labels.tolist() == [*plain.train.labels.tolist(), *[UNLABELLED] * 5]
    assert torch.equal(train.pixels[:12], plain.train.pixels)  # type: ignore[index]
    assert train.digest != plain.train.digest
    assert joined.test.digest == plain.test.digest
    assert "5 without labels" in joined.origins["train"]
    assert read(root, unlabelled="none").train.digest == plain.train.digest


@pytest.mark.parametrize("side", [8, 80])
def test_a_second_root_joins_any_source(root: Path, tmp_path: Path, side: int) -> None:
    """Images of another size are read from their files, with all that the loaders need."""
    paint(tmp_path / "more", 4, side, 5)
    train = read(root, unlabelled=str(tmp_path / "more"), images=6, labels=4).train
    assert len(train) == 6 + 4
    assert int(train.labelled.sum()) == 4
    assert train.image(9).shape == (3, side, side)
    assert train.sides()[9].tolist() == [side, side]
    assert len(train.paths) == len(train.contents) == 10
    assert train.crop(8, lambda height, width: (1, 2, 3, 4)).shape == (3, 3, 4)


def test_none_of_them_is_held_out_for_validation(root: Path, tmp_path: Path) -> None:
    paint(tmp_path / "more", 20, 8, 5)
    images = read(root, unlabelled=str(tmp_path / "more"), validation=0.5)
    assert images.validation is not None
    assert images.validation.labelled.all()
    assert len(images.train) == 6 + 20


def test_a_run_without_a_test_split_is_measured_on_what_it_held_out(
    root: Path, tmp_path: Path
) -> None:
    (root / "test").rename(tmp_path / "elsewhere")
    paint(root / "unlabelled", 3, 8, 5)
    recipe = Recipe.from_dict(
        {"data": {"source": "folder", "root": str(root / "train"), "validation": 0.5,
                  "unlabelled": str(root / "unlabelled")}}
    )  # fmt: skip
    task = tasks.find("classification")
    images = read_images(recipe, task)
    again = read_test_images(recipe, task, trained_on=images.train.digest)
    assert again.test.digest == images.test.digest


def test_a_batch_holds_the_labelled_share(root: Path) -> None:
    paint(root / "Unlabeled", 36, 8, 5)
    views = {"labelled_share": 0.25, "augment": "flip", "transforms": []}
    content = {"source": "folder", "root": str(root), **views}
    recipe = Recipe.from_dict({"data": content, "training": {"batch": 8}, "methods": {"kd": {}}})
    task = tasks.find("classification")
    loader = Loaders(recipe, task, 8, rank=0, world=1).training(read_images(recipe, task).train)
    assert {int(step[0].labelled.sum()) for step in loader.epoch(0)} == {2}


def test_what_cannot_be_joined_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        read(root, unlabelled=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read(root, unlabelled=str(tmp_path / "empty"))
    boxes = {"source": "drawn_shapes", "root": "3", "unlabelled": str(root)}
    recipe = Recipe.from_dict({"task": "detection", "data": boxes | {"augment": "flip"}})
    with pytest.raises(RecipeError, match="leave it out for detection"):
        read_images(recipe, tasks.find("detection"))


def test_images_of_several_classes_get_rows_that_are_not_known(root: Path) -> None:
    data = {"source": "drawn_shapes", "root": "3", "unlabelled": str(root / "train")}
    recipe = Recipe.from_dict({"task": "multilabel", "data": data})
    train = read_images(recipe, tasks.find("multilabel")).train
    assert (train.labels[3:] == UNLABELLED).all()
    assert train.labels.shape == (15, 6)
