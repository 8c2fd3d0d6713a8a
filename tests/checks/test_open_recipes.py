"""A recipe that leaves open what may be `auto`: no check takes that word for a number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import pictures
from tests.support.planted_teachers import DataSetMaker, clothes, distillation, marks, spoiled
from tests.support.small_runs import CNN
from understudy.checks.examine import doctor
from understudy.checks.examined import Examined
from understudy.config.recipe import Recipe
from understudy.experiment import defaults

DETECTOR = {
    "name": "fcos",
    "options": {"backbone": "timm:test_resnet", "channels": 64, "min_size": 64, "max_size": 96},
}


def whole_images(dataset: DataSetMaker, **keys: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: (
        distillation(dataset, spoiled(dataset, folder, "none"))
        | {
            "student": {"name": distillation(dataset, folder)["teacher.name"]},
            **keys,
        }
    )


def files(folder: Path) -> dict[str, Any]:
    """Pictures of two sizes, which are not kept in memory."""
    for split, seed in (("train", 0), ("test", 2)):
        pictures(folder / "data", {"cat": 12}, split=split, seed=seed)
        pictures(folder / "data", {"dog": 12}, split=split, seed=seed + 1, sides=(70, 64))
    return {
        "data": {"source": "folder", "root": str(folder / "data")},
        "student": {"name": CNN},
        "training.batch": 8,
    }


def boxes(folder: Path) -> dict[str, Any]:
    return {
        "task": "detection",
        "data": {"source": "drawn_shapes", "root": "24"},
        "student": DETECTOR,
        "training.batch": 4,
    }


@pytest.mark.parametrize(
    "make",
    [
        files,
        whole_images(clothes),
        whole_images(marks, weights="auto"),
        whole_images(clothes, task="none", methods={"kd": {}, "nd": {}}),
        boxes,
    ],
    ids=["files", "classes", "several classes", "without labels", "boxes"],
)
def test_every_check_is_made(make: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    recipe = Recipe.load({"trust": True}, make(tmp_path))
    assert len(defaults.unresolved(recipe)) >= 10
    examination = doctor(recipe, device="cpu")
    # A busy machine may have no time for the last checks.
    reasons = {reason for reason in examination.reasons if "were over" not in reason}
    assert not reasons, examination.not_run


def test_the_test_images_may_choose_where_validation_is_open(tmp_path: Path) -> None:
    recipe = Recipe.load({"trust": True}, files(tmp_path) | {"training.best": "test"})
    assert Examined(recipe, device="cpu").images.validation is None
