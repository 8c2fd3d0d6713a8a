"""A detector that detects well as teacher: a healthy recipe, and the same with planted faults."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.papers import over_papers
from tests.support.small_scenes import CLASSES, Scenes
from understudy.checks import divergence, losses
from understudy.checks.detector_accuracy import check
from understudy.checks.examine import examine
from understudy.checks.examined import Examined
from understudy.config.recipe import Recipe
from understudy.experiment.images import Images
from understudy.experiment.train import train

PLANTED = Counter(detector_accuracy=2, divergence=1)
"""Faults planted below, by check."""

OPTIONS = {"backbone": "timm:test_resnet", "size": 64, "extra": [32, 32]}
TESTED = Scenes(12, seed=1)
IMAGES = Images(Scenes(40, seed=0), TESTED)
RECIPE: dict[str, Any] = over_papers(
    {
        "task": "detection",
        "data": {"augment": "none"},
        "student": {"name": "ssd", "options": OPTIONS},
        "training": {
            **{"epochs": 40, "batch": 4, "lr": 0.004, "schedule": "cosine", "optimizer": "adamw"},
            **{"weight_decay": 1e-4, "warmup_epochs": 1, "clip": 5.0, "evaluate_every": 40},
        },
    }
)


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A detector that knows the test scenes by heart, as keys of a recipe."""
    folder = tmp_path_factory.mktemp("able")
    run = train(Recipe.from_dict(RECIPE), images=Images(TESTED, TESTED), out=folder, device="cpu")
    assert run.evaluation["metrics"]["AP50"] > 60
    weights = folder / "unnamed.safetensors"
    save_file(load_file(run.path / "student.safetensors"), weights)
    return {"teacher": {"name": "ssd", "options": OPTIONS, "weights": str(weights)}}


def examined(keys: dict[str, Any], **others: Any) -> Examined:
    recipe = Recipe.load(RECIPE, {**keys, "methods": {"lshfm": {"hashes": 64}}, **others})
    return Examined(recipe, images=IMAGES, device="cpu", seconds=600.0)


def test_a_healthy_detection_recipe_has_no_warning(able: dict[str, Any]) -> None:
    named = {**able, "teacher": {**able["teacher"], "classes": list(CLASSES)}}
    examination = examine(examined(named))
    assert [str(finding) for finding in examination.faults] == []
    assert not examination.not_run
    (note,) = (x.message for x in examination.findings if x.check == "detector_accuracy")
    assert float(note.rpartition(" ")[2].rstrip(".")) > 60


PLACES: dict[str, dict[str, Any]] = {
    "classes in another order": {"classes": list(CLASSES[::-1])},
    "another normalisation": {
        "classes": list(CLASSES),
        "options": {**OPTIONS, "image_mean": [0.0] * 3, "image_std": [0.1] * 3},
    },
}


@pytest.mark.parametrize("fault", PLACES)
def test_a_fault_of_a_detector_is_found_and_mended(
    fault: str, able: dict[str, Any], tmp_path: Path
) -> None:
    spoiled = {"teacher": {**able["teacher"], **PLACES[fault]}}
    (finding,) = check(examined(spoiled))
    assert finding.level != "note"
    (key,) = finding.fix
    assert key == ("teacher.options" if "options" in PLACES[fault] else "teacher.classes")
    (after,) = check(examined(spoiled, **finding.fix))
    assert after.level == "note"


def test_a_rate_at_which_a_detector_diverges_is_mended(able: dict[str, Any]) -> None:
    named = {**able, "teacher": {**able["teacher"], "classes": list(CLASSES)}}
    (finding,) = divergence.check(examined(named, **{"training.lr": 1000.0}))
    assert finding.level == "error"
    assert not list(divergence.check(examined(named, **finding.fix)))


def test_losses_of_a_slow_detector_are_measured_on_two_images(
    able: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_BUDGET", {True: 0.0, False: 0.0})
    (note,) = losses.check(examined(able))
    assert "(2 images)" in note.message
