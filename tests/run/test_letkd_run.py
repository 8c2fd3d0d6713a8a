"""letKD as an experiment: a student whose layers stay, evaluated, interrupted, compared, reused."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.support.small_runs import Stop, outcome
from understudy.comparison.compare import compare
from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted
from understudy.experiment.evaluate import evaluate
from understudy.experiment.train import train

SIZES = {"words": 16, "subclasses": 2, "iterations": 4}


@pytest.fixture
def wanted(tiny: Recipe, tmp_path: Path) -> Recipe:
    measured = str(tmp_path / "measured")
    return replace(tiny, methods={"letkd": {**SIZES, "keep": measured}})


def test_the_saved_student_has_its_layers_and_evaluates_alike(
    wanted: Recipe, tmp_path: Path
) -> None:
    run = train(wanted, out=tmp_path / "run")
    with safe_open(run.path / "student.safetensors", "pt") as file:
        assert sum(key.endswith("score.weight") for key in file.keys()) == 2  # noqa: SIM118
    again = evaluate(run.path, {"trust": True})
    assert again.metrics == pytest.approx(run.evaluation["metrics"])
    assert run.evaluation["parameters"] == run.evaluation["train_parameters"]
    costs = run.evaluation["layers"]
    assert costs["student"]["parameters"] == run.evaluation["parameters"]
    assert costs["student"]["macs"] > costs["plain"]["macs"] > 0


def test_measuring_is_logged(wanted: Recipe, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    train(wanted, out=tmp_path / "run")
    assert log.messages[0] == "letkd: stored the teacher's maps of 200 images"
    assert sum("codebook, iteration" in message for message in log.messages) == 4
    assert "nearest to their own sub-class" in log.text


def test_an_interrupted_run_goes_on_to_the_same_student(wanted: Recipe, tmp_path: Path) -> None:
    whole = train(wanted, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(wanted, out=tmp_path / "part", callback=Stop(5, signal.SIGTERM))
    part = train(wanted, out=tmp_path / "part", resume=True)
    assert outcome(part) == outcome(whole)


def test_quest_and_the_control_of_capacity_are_arms(wanted: Recipe, tmp_path: Path) -> None:
    arms = {
        **wanted.methods,
        "quest": {"method": "letkd", **SIZES, "places": "penultimate", "alpha": 0.0},
        "capacity": {"method": "letkd", **SIZES, "supervised": False},
    }
    short = replace(wanted, methods=arms, training=replace(wanted.training, epochs=1))
    found = compare(short, seeds=[0], out=tmp_path / "comparison")
    parameters = {arm["name"]: arm["cost"]["parameters"] for arm in found.arms}
    assert parameters["letkd"] == parameters["capacity"] > parameters["quest"]
    assert parameters["quest"] == parameters["control"], "its layer is not deployed"


def test_a_student_with_layers_teaches(wanted: Recipe, tmp_path: Path) -> None:
    first = train(wanted, out=tmp_path / "first")
    reused = replace(wanted, teacher=recipe.Network(weights=str(first.path)), methods={"kd": {}})
    second = train(reused, out=tmp_path / "second")
    assert second.evaluation["teacher"]["metrics"]["top1"] == pytest.approx(
        first.evaluation["metrics"]["top1"]
    )
