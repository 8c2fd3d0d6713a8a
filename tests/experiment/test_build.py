"""What a recipe says of its images, built."""

from pathlib import Path

import pytest
import torch

from understudy.config.recipe import Recipe
from understudy.data import DecodedSource, FileSource, FileViews, MemorySource
from understudy.errors import DataError, RecipeError
from understudy.experiment import build


def wanted(root: Path, **keys: object) -> Recipe:
    return Recipe.from_dict(
        {
            "data": {"source": "folder", "root": str(root), "augment": "resized_crop", **keys},
            "student": {"name": "torchvision:resnet18"},
            "training": {"batch": 2, "epochs": 1},
        }
    )


def test_decoded_images_are_kept_apart_for_each_split(tree: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shown = [build.sources(wanted(tree, decoded=folder)) for folder in ("", str(kept))]
    for live, stored in zip(*shown, strict=True):
        assert isinstance(live, FileSource)
        assert isinstance(stored, DecodedSource)
        assert live.digest == stored.digest
        assert torch.equal(live.image(1), stored.image(1))
    assert sorted(path.name for path in kept.iterdir()) == ["test", "train"]
    assert wanted(tree).digest == wanted(tree, decoded=str(kept)).digest


def test_a_part_kept_for_validation_shares_the_store(tree: Path, tmp_path: Path) -> None:
    build.sources(wanted(tree, decoded=str(tmp_path / "kept"), validation=0.34))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["train"]


def test_a_reduced_side_is_another_experiment(tree: Path, tmp_path: Path) -> None:
    reduced = wanted(tree, decoded=str(tmp_path / "kept"), decoded_side=35)
    assert reduced.digest != wanted(tree).digest
    assert build.sources(reduced)[0].image(0).shape == (3, 35, 40)


def test_a_reduced_side_without_a_store_is_refused(tree: Path) -> None:
    with pytest.raises(RecipeError, match=r"decoded_side=35 .* in a folder; set data\.decoded"):
        build.sources(wanted(tree, decoded_side=35))


def test_images_in_memory_need_no_store(tmp_path: Path) -> None:
    small = Recipe.from_dict({"data": {"decoded": str(tmp_path / "kept")}})
    assert isinstance(build.sources(small)[0], MemorySource)
    assert not (tmp_path / "kept").exists()
    reduced = Recipe.from_dict({"data": {"decoded": str(tmp_path), "decoded_side": 16}})
    with pytest.raises(RecipeError, match="these are small and kept in memory: leave it out"):
        build.sources(reduced)


def test_jitter_is_part_of_the_views(tree: Path) -> None:
    plain, coloured = (build.experiment(wanted(tree, jitter=s)).train.views for s in (0.0, 0.3))
    assert isinstance(plain, FileViews)
    assert "ColorJitter" in coloured.description
    assert "ColorJitter" not in plain.description
    assert plain.description == str(plain.transform) + ", seed 0"
    with pytest.raises(DataError, match=r"data\.jitter is -1"):
        build.experiment(wanted(tree, jitter=-1.0))
