"""What a recipe says of its images, read and built."""

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.data import DecodedSource, FileSource, FileViews, MemorySource, Source
from understudy.data.sources import folder
from understudy.errors import RecipeError
from understudy.experiment import build
from understudy.experiment.images import Images, read_images, read_test_images


def wanted(root: Path, **keys: object) -> Recipe:
    return Recipe.from_dict(
        {
            "data": {"source": "folder", "root": str(root), "augment": "resized_crop", **keys},
            "student": {"name": "torchvision:resnet18"},
            "training": {"batch": 2, "epochs": 1},
        }
    )


def images(asked: Recipe) -> Images:
    return read_images(asked, tasks.find(asked.task))


def test_decoded_images_are_kept_apart_for_each_split(tree: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    undecoded, decoded = (images(wanted(tree, decoded=store)) for store in ("", str(kept)))
    pairs = ((undecoded.train, decoded.train), (undecoded.test, decoded.test))
    for live, stored in pairs:
        assert isinstance(live, FileSource)
        assert isinstance(stored, DecodedSource)
        assert live.digest == stored.digest
        assert torch.equal(live.image(1), stored.image(1))
    assert sorted(path.name for path in kept.iterdir()) == ["test", "train"]
    assert wanted(tree).digest == wanted(tree, decoded=str(kept)).digest


def test_a_part_kept_for_validation_shares_the_store(tree: Path, tmp_path: Path) -> None:
    images(wanted(tree, decoded=str(tmp_path / "kept"), validation=0.34))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["test", "train"]


def test_a_reduced_side_is_another_experiment(tree: Path, tmp_path: Path) -> None:
    reduced = wanted(tree, decoded=str(tmp_path / "kept"), decoded_side=35)
    assert reduced.digest != wanted(tree).digest
    assert images(reduced).train.image(0).shape == (3, 35, 40)


def test_a_reduced_side_without_a_store_is_refused(tree: Path) -> None:
    with pytest.raises(RecipeError, match=r"decoded_side=35 .* in a folder; set data\.decoded"):
        images(wanted(tree, decoded_side=35))


def test_images_in_memory_need_no_store(tmp_path: Path) -> None:
    small = Recipe.from_dict({"data": {"decoded": str(tmp_path / "kept"), "validation": 0.0}})
    assert isinstance(images(small).train, MemorySource)
    assert not (tmp_path / "kept").exists()
    reduced = Recipe.from_dict({"data": {"decoded": str(tmp_path), "decoded_side": 16}})
    with pytest.raises(RecipeError, match="these are small and kept in memory: leave it out"):
        images(reduced)


@pytest.fixture
def splits_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that the source `folder` was asked for so far."""
    splits: list[str] = []
    load = folder.load

    def counted(root: str, split: Literal["train", "test"], **options: Any) -> Source:
        splits.append(split)
        return load(root, split, **options)

    monkeypatch.setattr(folder, "load", counted)
    return splits


def test_each_split_is_read_once(tree: Path, splits_read: list[str]) -> None:
    build.experiment(wanted(tree))
    assert splits_read == ["train", "validation", "test"]


def test_training_images_are_read_once_where_some_are_held_back(
    tree: Path, splits_read: list[str]
) -> None:
    asked = wanted(tree, validation=0.34)
    built = build.experiment(asked)
    assert splits_read == ["train", "test"]
    whole = images(wanted(tree)).train
    assert len(built.images.train) + len(built.images.validation) == len(whole)
    splits_read.clear()
    assert read_test_images(asked, built.task).test.digest == built.images.test.digest
    assert splits_read == ["test"]


def test_without_a_test_split_the_images_held_back_are_measured(
    tree: Path, splits_read: list[str]
) -> None:
    shutil.rmtree(tree / "val")
    asked = wanted(tree, validation=0.34)
    built = build.experiment(asked)
    assert built.images.test is built.images.validation
    assert built.test is built.validation
    splits_read.clear()
    held_back = read_test_images(asked, built.task)
    assert splits_read == ["test", "train"]
    assert held_back.test.digest == built.images.test.digest
    assert held_back.measured == "validation"


def test_jitter_is_part_of_the_views(tree: Path) -> None:
    plain, coloured = (build.experiment(wanted(tree, jitter=s)).train.views for s in (0.0, 0.3))
    assert isinstance(plain, FileViews)
    assert "ColorJitter" in coloured.description
    assert "ColorJitter" not in plain.description
    assert plain.description == f"{plain.transform}, seed 0; evaluation: {plain.clean}"
    with pytest.raises(RecipeError, match=r"'data\.jitter' is -1\.0; it must be from 0 to 10"):
        wanted(tree, jitter=-1.0)
