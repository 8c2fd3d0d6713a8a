"""The two stages of ab and fsp as two recipes, and the other methods on maps in one run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.small_images import CLOTHES
from understudy.config.recipe import Recipe
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

SMALL: dict[str, Any] = {
    "data": {"source": "folder", "root": CLOTHES, "images": 64, "size": 16},
    "student": {"name": "resnet8", "size": 16, "options": {"widths": [4, 4, 6, 8]}},
    "training": {"epochs": 1, "batch": 32, "lr": 0.02, "schedule": "constant"},
}


def small(**changes: Any) -> Recipe:
    return Recipe.load(SMALL, changes)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(), out=tmp_path_factory.mktemp("runs") / "teacher").path


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "student.safetensors")


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_the_second_stage_starts_from_the_student_of_the_first(
    name: str, teacher: Path, tmp_path: Path
) -> None:
    alone = {"methods": {name: {}}, "task_weight": 0.0, "teacher.weights": str(teacher)}
    first = train(small(**alone), out=tmp_path / "first")
    again = {"student.name": "", "student.weights": str(first.path), "training.lr": 0.0}
    second = train(small(**again), out=tmp_path / "second")
    (line,) = first.history
    assert line["losses"][name] > 0
    # With a learning rate of 0 a run ends with the weights it began with.
    fresh = train(small(**{"training.lr": 0.0}), out=tmp_path / "fresh")
    learned, kept, initial = weights(first), weights(second), weights(fresh)
    trained = [key for key in learned if key.endswith("weight")]
    assert all(torch.equal(learned[key], kept[key]) for key in trained)
    assert not any(torch.equal(learned[key], initial[key]) for key in trained if "conv" in key)


@pytest.mark.parametrize("name", ["at", "nst", "vid", "ft", "ofd", "reviewkd"])
def test_trains_in_one_stage(name: str, teacher: Path, tmp_path: Path) -> None:
    quick = {"paraphraser_epochs": 2} if name == "ft" else {}
    wanted = {"methods": {name: quick}, "teacher.weights": str(teacher), "training.epochs": 2}
    run = train(small(**wanted), out=tmp_path / name)
    assert len(run.history) == 2
    assert all(math.isfinite(line["losses"][name]) for line in run.history)
