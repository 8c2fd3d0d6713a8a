"""Whatever goes wrong ends in one sentence with the fix, and loses nothing."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_runs import CNN, TINY, Stop
from understudy.config.recipe import Recipe
from understudy.errors import (
    DataError,
    Diverged,
    Interrupted,
    NameNotFound,
    NetworkError,
    RecipeError,
    RunError,
    UnderstudyError,
)
from understudy.experiment.run_directory import Run
from understudy.experiment.train import distill, train


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"student.name": "resnet8x5"}, NameNotFound, "did you mean 'resnet8x4'"),
        ({"data.source": "fasion"}, NameNotFound, "did you mean 'fashion'"),
        ({"methods": {"lshmf": {}}}, NameNotFound, "did you mean 'lshfm'"),
        ({"methods": {"kd": {"temprature": 2}}}, RecipeError, "did you mean 'temperature'"),
        ({"methods": {"kd": {"weight": "much"}}}, RecipeError, "must be a number"),
        ({"methods": {"kd": {"weight": "4"}}}, RecipeError, "must be a number"),
        ({"methods": {"kd": {"weight": -1}}}, RecipeError, "at least 0"),
        ({"methods": {"kd": {"weight": {"warmup_epochs": 1}}}}, RecipeError, "must have a 'value'"),
        (
            {"methods": {"kd": {"temperature": "4"}}},
            RecipeError,
            r"'methods\.kd\.temperature' is '4'; it must be a number",
        ),
        ({"methods": {"kd": {"projector": 1}}}, RecipeError, "must be true or false"),
        ({"methods": {"pefd": {"projectors": True}}}, RecipeError, "must be a whole number"),
        ({"methods": {"lshfm": {"terms": "lsh2"}}}, RecipeError, r"'methods\.lshfm\.terms' is"),
        ({"methods": {"kd": {"temperature": 0}}}, RecipeError, "must be above 0"),
        ({"methods": {"lshfm": {"hash_std": -0.5}}}, RecipeError, "must be above 0"),
        ({"methods": {"lshfm": {"hashes": 0}}}, RecipeError, "at least 1"),
        ({"methods": {"pefd": {"projectors": -1}}}, RecipeError, "from 0 to 1000"),
        ({"training.trackers": ["tensorbord"]}, RecipeError, "did you mean 'tensorboard'"),
        ({"training.epoch": 2}, RecipeError, "did you mean 'epochs'"),
        ({"training.schedule": "cosin"}, RecipeError, "did you mean 'cosine'"),
        ({"training.lr": "fast"}, RecipeError, "must be a number"),
        ({"task": "clasification"}, RecipeError, "did you mean 'classification'"),
        (
            {"methods": {"fitnet": {"feature": "stage9"}}},
            UnderstudyError,
            "has no feature 'stage9'",
        ),
        ({"teacher.weights": "nowhere"}, NetworkError, "nowhere"),
        ({"teacher.weights": ""}, RecipeError, "teacher"),
        ({"data.source": "folder", "data.root": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(
    tiny: Recipe, tmp_path: Path, changes: dict, error: type[UnderstudyError], words: str
) -> None:
    with pytest.raises(error, match=words):
        distill(Recipe.load(tiny, changes), out=tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_teacher_without_weights_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    wanted = Recipe.load(tiny, {"teacher": {"name": CNN, "weights": ""}})
    with pytest.raises(NetworkError, match="would teach noise"):
        train(wanted, out=tmp_path)


def test_a_teacher_with_other_classes_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    other = Recipe.load(TINY, {"training.epochs": 1})
    run = train(other, out=tmp_path / "other")
    path = run.path / "student.safetensors"
    renamed = ["Slipper", *run.environment["classes"][1:]]
    save_file(load_file(path), path, metadata={"classes": json.dumps(renamed)})
    wanted = Recipe.load(tiny, {"teacher.weights": str(run.path)})
    with pytest.raises(DataError, match="Slipper"):
        train(wanted, out=tmp_path / "student")


def test_nan_stops_names_the_term_and_keeps_the_last_good_state(
    tiny: Recipe, tmp_path: Path
) -> None:
    # The weight of a warm-up is 0 in the first epoch: training breaks only in the second.
    explode = {"weight": {"value": 1e38, "warmup_epochs": 1}, "temperature": 1.0}
    wanted = Recipe.load(tiny, {"methods": {"kd": explode}, "training.schedule": "constant"})
    with pytest.raises(Diverged, match=r"The loss '\w+' became NaN or infinite in epoch 2"):
        train(wanted, out=tmp_path)
    assert len(Run(tmp_path).history) == 1
    state = torch.load(tmp_path / "last" / "state.ckpt", weights_only=True)["trainable"]
    assert all(x.isfinite().all() for x in state.values())


def test_a_full_disk_loses_nothing(tiny: Recipe, tmp_path: Path, small_disk: Path) -> None:
    whole = train(tiny, out=tmp_path / "whole")
    (small_disk / "ballast").write_bytes(bytes(330_000))
    with pytest.raises(RunError, match=r"The disk is full.*continue with --resume"):
        train(tiny, out=small_disk / "run")
    (small_disk / "ballast").unlink()
    resumed = train(tiny, out=small_disk / "run", resume=True)
    whole_file = (whole.path / "student.safetensors").read_bytes()
    assert (resumed.path / "student.safetensors").read_bytes() == whole_file


def test_a_disk_that_became_read_only(tiny: Recipe, small_disk: Path) -> None:
    out = small_disk / "run"
    with pytest.raises(Interrupted):
        train(tiny, out=out, callback=Stop(10, signal.SIGTERM))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    kept = (out / "last" / "state.ckpt").read_bytes()
    with pytest.raises(RunError, match=r"cannot be written \(Read-only file system\)"):
        train(tiny, out=out, resume=True)
    assert (out / "last" / "state.ckpt").read_bytes() == kept


def test_a_folder_that_cannot_be_written(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        train(tiny, out=tmp_path / "file" / "run")


def test_there_must_be_something_to_resume(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run in .* to continue; start without --resume"):
        train(tiny, out=tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


def test_what_diverged_once_is_not_silently_tried_again(tiny: Recipe, tmp_path: Path) -> None:
    wanted = Recipe.load(tiny, {"training.lr": 1e30})
    for words in ("became NaN", r"diverged: .* Delete the directory to retrain, or"):
        with pytest.raises(Diverged, match=words):
            train(wanted, out=tmp_path, resume=Run(tmp_path).begun)


def test_a_run_without_its_environment(tiny: Recipe, tmp_path: Path) -> None:
    train(tiny, out=tmp_path)
    for name in ("evaluation.json", "environment.json"):
        (tmp_path / name).unlink()
    with pytest.raises(RunError, match=r"environment\.json is missing; start again"):
        train(tiny, out=tmp_path, resume=True)


def test_pickled_weights_are_refused(tiny: Recipe, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, ("true",)

    torch.save({"state_dict": Evil()}, tmp_path / "teacher.pth")
    weights = {"name": CNN, "weights": str(tmp_path / "teacher.pth")}
    with pytest.raises(NetworkError, match="holds pickled objects"):
        train(Recipe.load(tiny, {"teacher": weights}), out=tmp_path / "run")
