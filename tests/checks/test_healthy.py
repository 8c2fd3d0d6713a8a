"""Recipes in which nothing is amiss: the doctor gives no warning, and makes every check it can."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted_faults import SMALL
from tests.support.small_images import CLOTHES
from understudy.checks.examine import doctor
from understudy.config.recipe import Recipe
from understudy.experiment.train import train

FOLDER = {"data.source": "folder", "data.root": CLOTHES}
SHAPES = {"data.source": "drawn_shapes", "data.root": "120", "data.size": 48}
TRAINING = {"training.epochs": 8, "training.batch": 30, "training.lr": 0.05}


def recipe_with(keys: dict[str, Any]) -> Recipe:
    return Recipe.load(Recipe.load(SMALL, TRAINING), keys)


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher of clothes that is far better than chance, as keys of a recipe."""
    keys = FOLDER | {"student.options": {"width": 16, "norm": True}, "data.augment": "flip"}
    run = train(recipe_with(keys), out=tmp_path_factory.mktemp("able"), device="cpu")
    assert run.evaluation["metrics"]["top1"] > 60
    return {"teacher.weights": str(run.path)} | FOLDER


HEALTHY: dict[str, dict[str, Any]] = {
    "logits": {"methods": {"kd": {}}},
    "features": {"methods": {"lshfm": {"hashes": 64}, "kd": {}}},
    "validation": {"methods": {"nd": {}}, "data.validation": 0.2},
    "half of the images": {"methods": {"kd": {}}, "data.images": 300},
    "few labels": {"methods": {"kd": {}}, "data.labels": 200, "data.labelled_share": 0.5},
    "without labels": {"methods": {"kd": {}}, "task": "none"},
    "adamw": {"methods": {"kd": {}}, "training.optimizer": "adamw", "training.lr": 1e-3},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "clothes alone": FOLDER | {"student": "resnet8"},
    "shipped clothes": {"data.source": "fashion", "data.size": 16, "data.images": 1000},
    "shapes": {
        **SHAPES,
        "task": "multilabel",
        "student": {"name": "resnet8", "size": 48},
        "training.epochs": 16,
    },
}


@pytest.mark.parametrize("keys", HEALTHY.values(), ids=list(HEALTHY))
def test_a_healthy_distillation_has_no_warning(keys: dict[str, Any], able: dict[str, Any]) -> None:
    assert_healthy(recipe_with(able | keys))


@pytest.mark.parametrize("keys", CONTROLS.values(), ids=list(CONTROLS))
def test_a_healthy_control_has_no_warning(keys: dict[str, Any]) -> None:
    assert_healthy(recipe_with(keys))


def test_photographs_of_fruit_have_no_warning(tmp_path: Path) -> None:
    archive = Path(__file__).parents[3] / "shared" / "data" / "fruits.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there: photographs with a licence that forbids to ship them")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    data = {"source": "csv", "root": str(tmp_path / "fruits" / "multilabel.csv"), "size": 64}
    keys = {
        "task": "multilabel",
        "student": {"name": "resnet8", "size": 64},
        "data": {**data, "augment": "resized_crop"},
    }
    assert_healthy(recipe_with(keys))


def assert_healthy(recipe: Recipe) -> None:
    examination = doctor(recipe, short=True, device="cpu")
    assert [str(x) for x in examination.findings if x.level != "note"] == []
    # A busy machine may have no time for the last checks.
    assert all("were over" in reason for reason in examination.not_run.values())
    assert examination.headline.startswith("doctor: no warning, ")
