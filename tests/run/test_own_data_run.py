"""Runs on the data of a program: as on files, continued exactly, and refused on other data."""

import signal
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN, Stop, outcome
from understudy import compare, distill, doctor, evaluate, train
from understudy.config.recipe import Recipe
from understudy.errors import BankError, DataError, Interrupted, RecipeError, RunError
from understudy.experiment import bank_build

TINY: dict[str, Any] = {
    "name": "own",
    "trust": True,
    "student": {"name": CNN, "options": {"width": 4}},
    "data": {"images": 100},
    "training": {"epochs": 2, "batch": 32, "schedule": "cosine"},
}


def folder(split: str) -> ImageFolder:
    return ImageFolder(f"{CLOTHES}/{split}")


def data() -> tuple[ImageFolder, ImageFolder]:
    return folder("train"), folder("test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY, data=data(), out=tmp_path_factory.mktemp("own") / "run").path


def test_a_dataset_trains_the_same_student_as_its_folder(trained: Path, tmp_path: Path) -> None:
    spec = {"source": "folder", "root": CLOTHES, "images": 100}
    of_folder = train(TINY | {"data": spec}, out=tmp_path / "folder")
    weights = [(path / "student.safetensors").read_bytes() for path in (trained, of_folder.path)]
    assert weights[0] == weights[1]


def test_a_run_says_what_its_images_were_and_asks_for_them_again(trained: Path) -> None:
    from understudy import Run

    run = Run.open(trained)
    assert run.recipe.data.source == "python"
    assert run.splits["train"]["origin"] == "python: train, ImageFolder, part of its 600"
    again = evaluate(run, data=folder("test"))
    assert again.metrics["top1"] == pytest.approx(run.evaluation["metrics"]["top1"])
    with pytest.raises(DataError, match=r"by data=: give them again in Python"):
        evaluate(run)


def test_a_run_continues_exactly_and_on_the_same_data_alone(trained: Path, tmp_path: Path) -> None:
    from understudy import Run

    out = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train(TINY, data=data(), out=out, callback=Stop(3, signal.SIGTERM))
    backwards = Subset(folder("train"), range(599, -1, -1))
    with pytest.raises(RunError, match="The training images changed"):
        train(TINY, data=(backwards, folder("test")), out=out, resume=True)
    continued = train(TINY, data=data(), out=out, resume=True)
    assert outcome(continued) == outcome(Run.open(trained))


def test_a_finished_run_on_given_data_is_extended(tmp_path: Path) -> None:
    run = train(TINY, {"training.epochs": 1}, data=data(), out=tmp_path / "run")
    extended = train(TINY, {"training.epochs": 1}, data=data(), out=run.path, extend=1)
    assert extended.recipe.training.epochs == 2
    assert len(extended.history) == 2


def test_a_bank_is_of_these_images(trained: Path, tmp_path: Path) -> None:
    recipe = TINY | {
        "teacher": {"weights": str(trained)},
        "methods": {"kd": {}},
        "bank": {"path": str(tmp_path / "bank")},
        "data": {"augment": "none", "images": 50},
    }
    bank_build.fill(Recipe.from_dict(recipe), data=data())
    run = distill(recipe, {"training.epochs": 1}, data=data(), out=tmp_path / "run")
    assert run.finished
    assert bank_build.verify(Recipe.from_dict(recipe), data=data()).records
    with pytest.raises(BankError, match="images"):
        bank_build.verify(Recipe.from_dict(recipe), data=(folder("test"), folder("test")))


def test_the_doctor_examines_them() -> None:
    examination = doctor(TINY, {"training.epochs": 1}, data=data(), short=True)
    text = " ".join(f"{finding.message} {finding.advice}" for finding in examination.findings)
    assert "came from a program" not in text


def test_a_comparison_trains_its_runs_in_turn(trained: Path, tmp_path: Path) -> None:
    recipe = TINY | {"teacher": {"weights": str(trained)}, "data": {"images": 50}}
    options: dict[str, Any] = {"methods": ["kd"], "seeds": [0], "out": tmp_path}
    with pytest.raises(RecipeError, match="in this process alone"):
        compare(recipe, data=data(), jobs=2, **options)
    compared = compare(recipe, {"training.epochs": 1}, data=data(), **options)
    assert "kd" in str(compared.table())
