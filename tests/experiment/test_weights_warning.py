"""Weights of runs: trained to their end, and on no image that measures here."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from understudy import tasks
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.data import subset
from understudy.data.sources import folder
from understudy.deployment.export import run_images
from understudy.errors import RecipeError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.images import Images, read_images, read_test_images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

WARNING = "held other images out than those that measure here"


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of three classes without splits, ten small pictures each."""
    root = tmp_path_factory.mktemp("unsplit")
    for number in range(30):
        place = root / ("cat", "cow", "dog")[number % 3]
        place.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (8 * number, 9, 99)).save(place / f"{number:02}.png")
    return str(root)


@pytest.fixture(scope="module")
def teacher(unsplit: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network trained on four fifths of these pictures."""
    return train(asked(unsplit), out=tmp_path_factory.mktemp("teacher") / "run", device="cpu")


def asked(root: str, **keys: Any) -> Recipe:
    return Recipe.load(
        {
            "data": {"source": "folder", "root": root},
            "student": {"name": "resnet8"},
            "training": {"epochs": 1, "batch": 8},
        },
        keys,
    )


def measured(recipe: Recipe) -> Images:
    return read_images(recipe, tasks.find(recipe.task))


@pytest.mark.parametrize("keys", [{"seed": 1}, {"data.seed": 2}, {"data.images": 9, "seed": 3}])
def test_every_seed_holds_out_the_same_images(unsplit: str, keys: dict[str, Any]) -> None:
    assert measured(asked(unsplit, **keys)).test.digest == measured(asked(unsplit)).test.digest


def test_the_teacher_of_a_comparison_is_measured_alike_for_every_seed(
    teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(teacher.recipe, name="compared")
    compared = compare(
        recipe,
        {"teacher.weights": str(teacher.path)},
        methods=["kd"],
        seeds=(0, 1),
        out=tmp_path / "out",
    )
    values = [run.evaluation["teacher"]["metrics"]["top1"] for run in compared.runs("kd")]
    assert values == [teacher.evaluation["metrics"]["top1"]] * 2
    assert WARNING not in caplog.text


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_weights_of_a_run_that_held_out_others_are_warned_of(
    unsplit: str, teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    keys = {f"{role}.weights": str(teacher.path), "data.validation": 0.4}
    methods = {"methods": {"kd": {}}} if role == "teacher" else {}
    train(asked(unsplit, **keys, **methods), out=tmp_path / "run", device="cpu")
    assert f"from which the {role} is loaded, {WARNING}" in caplog.text


def test_a_whole_folder_does_not_measure_a_network_that_it_taught_in_silence(
    unsplit: str, teacher: Run, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"data.source": "folder", "data.root": unsplit}
    evaluate(None, {"student.weights": str(teacher.path), **data}, device="cpu")
    assert WARNING in caplog.text
    caplog.clear()
    assert evaluate(teacher.path, device="cpu").images == 6
    assert WARNING not in caplog.text


def test_a_run_whose_seed_chose_what_was_held_out_is_measured_on_that(unsplit: str) -> None:
    """As in earlier versions: all other images have trained it."""
    whole = folder.load(unsplit, "train")
    (now, _), (before, held_out) = (subset.split(whole, 0.2, seed=seed) for seed in (0, 5))
    recipe = asked(unsplit, **{"seed": 5, "data.validation": 0.2})
    read = partial(read_test_images, recipe, tasks.find(recipe.task))
    assert read(trained_on=before.digest).test.digest == held_out.digest
    assert read(trained_on=now.digest).test.digest != held_out.digest
    assert len(read(trained_on="of other images").test) == len(whole)


def test_an_export_is_verified_on_what_the_run_held_out(
    unsplit: str, teacher: Run, tmp_path: Path
) -> None:
    shutil.copytree(teacher.path, tmp_path / "before")
    run = Run(tmp_path / "before")
    train_images, held_out = subset.split(folder.load(unsplit, "train"), 0.2, seed=5)
    recorded = run.environment
    recorded["digests"]["training images"] = train_images.digest
    (run.path / "environment.json").write_text(json.dumps(recorded))
    read = partial(run_images.test_images, count=None)
    assert read(run, {"seed": 5}).source.digest == held_out.digest
    assert read(teacher, None).source.digest != held_out.digest


def test_a_teacher_whose_training_stopped_is_warned_of(
    unsplit: str, teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(teacher.path, tmp_path / "stopped")
    (tmp_path / "stopped" / "evaluation.json").unlink()
    keys = {"teacher.weights": str(tmp_path / "stopped"), "methods": {"kd": {}}}
    train(asked(unsplit, **keys), out=tmp_path / "run", device="cpu")
    assert "from which the teacher is loaded, stopped after 1 of 1 epochs" in caplog.text
    assert f"`understudy --resume {tmp_path / 'stopped'}`" in caplog.text


def test_a_classifier_is_no_teacher_of_a_detector(teacher: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a run of the task classification: name a run of"):
        train(
            "shapes/detection",
            {"teacher.weights": str(teacher.path)},
            out=tmp_path / "run",
            device="cpu",
        )


def test_a_detector_is_no_teacher_of_a_classifier(unsplit: str, tmp_path: Path) -> None:
    detector = {"task": "detection", "student": {"name": "fcos"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(detector))
    keys = {"teacher.weights": str(tmp_path), "methods": {"kd": {}}}
    with pytest.raises(RecipeError, match="is a run of the task detection: name a run of"):
        train(asked(unsplit, **keys), out=tmp_path / "run", device="cpu")
