"""Distilled students fine-tuned with few labels, beside the student that was not distilled."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import understudy
from tests.support.trained_students import NAMES, TRAINING, photographs
from understudy.cli.resume import command_of
from understudy.comparison.finetune import FinetuneComparison
from understudy.errors import RecipeError, RunError
from understudy.experiment.run_directory import Run
from understudy.models import find

LABELS = ("25%", "all")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Images and training of both recipes."""
    root = photographs(tmp_path_factory.mktemp("photographs"))
    data = {"source": "folder", "root": str(root), "size": 32, "validation": 0}
    return {"data": data, "training": TRAINING}


@pytest.fixture(scope="module")
def distillation(few: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Recipe of a comparison without labels."""
    weights = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(find("resnet8", num_classes=len(NAMES)).module.state_dict(), weights)
    teacher = {"name": "resnet8", "weights": str(weights)}
    return {"name": "features", "task": "none", "student": "resnet8", "teacher": teacher, **few}


@pytest.fixture(scope="module")
def finetuned(
    distillation: dict[str, Any],
    few: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> FinetuneComparison:
    """Both recipes in one call."""
    return understudy.finetune(
        distillation,
        {**few, "name": "labels"},
        labels=LABELS,
        methods=["lshfm"],
        seeds=[0],
        out=tmp_path_factory.mktemp("finetune") / "out",
        device="cpu",
    )


def student(run: Run) -> bytes:
    return (run.path / "student.safetensors").read_bytes()


def test_a_share_of_the_labels_becomes_a_number(finetuned: FinetuneComparison) -> None:
    assert finetuned.folders == {"3": "labels_3", "all": "labels_all"}
    assert FinetuneComparison.load(finetuned) == finetuned
    (run,) = finetuned.comparison("3").runs("control")
    assert run.recipe.data.labels == 3


@pytest.mark.parametrize("part", ["3", "all"])
def test_each_arm_is_what_training_alone_gives(
    finetuned: FinetuneComparison, few: dict[str, Any], part: str, tmp_path: Path
) -> None:
    distilled = finetuned.path / "distilled" / "lshfm" / "seed0"
    for arm, weights in {"control": "", "lshfm": str(distilled)}.items():
        (run,) = finetuned.comparison(part).runs(arm)
        assert run.recipe.student.weights == weights
        keys = {"student": {"name": "resnet8", "weights": weights}, "name": "alone"}
        recipe = {**few, **keys, "data": few["data"] | {"labels": None if part == "all" else 3}}
        alone = understudy.train(recipe, out=tmp_path / arm, device="cpu")
        assert student(run) == student(alone)


def test_a_finished_comparison_is_fine_tuned_as_its_recipe_is(
    finetuned: FinetuneComparison, few: dict[str, Any], tmp_path: Path
) -> None:
    again = understudy.finetune(
        finetuned.path / "distilled",
        overrides={"training": few["training"], "name": "labels"},
        out=tmp_path / "out",
        device="cpu",
    )
    (run,), (other,) = (
        again.comparison("all").runs("lshfm"),
        finetuned.comparison("all").runs("lshfm"),
    )
    assert student(run) == student(other)


def test_what_is_missing_is_trained_again(
    finetuned: FinetuneComparison, few: dict[str, Any]
) -> None:
    before = finetuned.comparison("3").runs("lshfm")[0]
    whole = student(before)
    shutil.rmtree(before.path)
    understudy.finetune(
        finetuned.path / "distilled",
        {**few, "name": "labels"},
        labels=LABELS,
        out=finetuned.path,
        resume=True,
        device="cpu",
    )
    assert student(before) == whole


def test_the_report_has_every_number_of_labels(finetuned: FinetuneComparison) -> None:
    page = understudy.report(finetuned).read_text(encoding="utf-8")
    assert "top-1 by the number of labels" in page
    assert 'href="labels_3/report.html"' in page
    text = (finetuned.path / "report.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in text.splitlines()[6:10]] == ["3"] * 2 + [
        "12"
    ] * 2


def test_a_part_is_continued_with_the_whole(finetuned: FinetuneComparison) -> None:
    assert command_of(finetuned.path) == "finetune"
    with pytest.raises(RunError, match="is a part of"):
        command_of(finetuned.path / "labels_3")


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        ({"labels": [0]}, {}, "not between 1 and the 12"),
        ({"labels": ["13"]}, {}, "not between 1 and the 12"),
        ({"labels": ["many"]}, {}, "takes numbers, shares and 'all'"),
        ({"labels": []}, {}, "how many labels"),
        ({"methods": ["kd"]}, {}, "no arm kd"),
        ({"seeds": [7]}, {}, "no finished student of the arm lshfm with seed 7"),
        ({}, {"task": "none"}, "needs labels"),
        ({}, {"methods": {"kd": {}}}, "labels alone"),
        ({}, {"student.name": "resnet14"}, "goes on with the distilled students"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_before_anything_is_written(
    finetuned: FinetuneComparison,
    arguments: dict[str, Any],
    overrides: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(RecipeError, match=message):
        understudy.finetune(
            finetuned.path / "distilled", None, overrides, out=out, device="cpu", **arguments
        )
    assert not out.exists()


def test_a_recipe_of_the_papers_names_no_student(
    finetuned: FinetuneComparison, few: dict[str, Any], tmp_path: Path
) -> None:
    recipe = {**few, "student": {"size": None}}  # as `base: _papers` leaves it
    with pytest.raises(RecipeError, match="not between 1 and the 12"):  # what is checked next
        understudy.finetune(
            finetuned.path / "distilled", recipe, labels=[0], out=tmp_path / "out", device="cpu"
        )


def test_a_single_run_is_not_a_comparison(finetuned: FinetuneComparison) -> None:
    run = finetuned.path / "distilled" / "lshfm" / "seed0"
    with pytest.raises(RunError, match="train --student"):
        understudy.finetune(run)
