"""`weights: auto`: the gradients of the methods are as long as that of the labels, once for all."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_runs import trainer_of
from understudy.comparison.compare import compare
from understudy.comparison.place import REASONS
from understudy.config.recipe import Recipe
from understudy.distillation.loss_scales import loss_scales
from understudy.experiment import build
from understudy.experiment.balance import BATCHES, balanced
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

SHORT: dict[str, Any] = {"weights": "auto", "training.epochs": 1, "data.images": 100}


def found(recipe: Recipe) -> tuple[build.Experiment, Recipe]:
    experiment = build.experiment(recipe)
    experiment.prepare()
    return experiment, balanced(recipe, experiment)[0]


def test_every_method_pulls_with_an_equal_part_of_what_the_labels_do(tiny: Recipe) -> None:
    experiment, complete = found(Recipe.load(tiny, {**SHORT, "task_weight": 0.5}))
    batches = [part for step in experiment.train.epoch(0) for part in step][:BATCHES]
    scales = loss_scales(experiment.distiller, batches)
    for label in ("lshfm", "kd"):
        weight = complete.methods[label]["weight"]
        assert weight * scales[label].ratio == pytest.approx(0.5 / 2, rel=0.01)
        assert experiment.distiller.weights[label].value == weight
    assert complete.weights == "published"


def test_a_weight_that_rises_still_does(tiny: Recipe) -> None:
    keys = {"methods": {"kd": {"weight": {"value": 3.0, "warmup_epochs": 2}}}}
    weight = found(Recipe.load(tiny, {**SHORT, **keys}))[1].methods["kd"]["weight"]
    assert weight["warmup_epochs"] == 2
    assert weight["value"] != 3.0


def test_without_a_loss_on_labels_the_first_method_is_the_measure(tiny: Recipe) -> None:
    keys = {"task": "none", "methods": {"kd": {"weight": 2.0}, "lshfm": {"hashes": 64}}}
    experiment, complete = found(Recipe.load(tiny, {**SHORT, **keys}))
    batches = [part for step in experiment.train.epoch(0) for part in step][:BATCHES]
    scales = loss_scales(experiment.distiller, batches)
    parts = [scales[k].gradient_norm * complete.methods[k]["weight"] for k in ("kd", "lshfm")]
    assert complete.methods["kd"]["weight"] == 2.0
    assert parts[0] == pytest.approx(parts[1], rel=0.01)


def test_published_weights_are_left_alone(tiny: Recipe) -> None:
    experiment = build.experiment(tiny)
    assert balanced(tiny, experiment) == (tiny, {})


def test_a_run_writes_them_and_goes_on_with_them(
    tiny: Recipe, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe.load(tiny, {**SHORT, "bank.path": str(tmp_path / "bank")})
    run = train(recipe, out=tmp_path / "run")
    weights = {label: keys["weight"] for label, keys in run.recipe.methods.items()}
    assert run.environment["reasons"].keys() == {"methods.kd.weight", "methods.lshfm.weight"}
    assert any(f"weight {weights['kd']:g}" in record.getMessage() for record in log.records)
    (run.path / "evaluation.json").unlink()
    again = train(recipe, out=run.path, resume=True)
    assert {label: keys["weight"] for label, keys in again.recipe.methods.items()} == weights
    # With a bank and without, and where they are stated, the same student comes out.
    stated = Recipe.load(tiny, {**SHORT, "weights": "published", "methods": again.recipe.methods})
    plain = train(stated, out=tmp_path / "stated")
    files = [each.path / "student.safetensors" for each in (run, plain)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_all_seeds_of_an_arm_have_the_same(tiny: Recipe, tmp_path: Path) -> None:
    recipe = Recipe.load(tiny, SHORT)
    compare(recipe, methods=["kd", "kd+lshfm"], seeds=[0], out=tmp_path)
    compare(recipe, methods=["kd", "kd+lshfm"], seeds=[0, 1], out=tmp_path)
    for arm in ("kd", "kd+lshfm"):
        runs = [Run(tmp_path / arm / f"seed{seed}").recipe for seed in (0, 1)]
        assert runs[0].methods == runs[1].methods
        assert runs[0].weights == "published"
    assert Run(tmp_path / "control" / "seed1").recipe.weights == "published"
    reasons = json.loads((tmp_path / REASONS).read_text())
    assert {"kd: methods.kd.weight", "kd+lshfm: methods.lshfm.weight"} <= reasons.keys()


def test_a_trainer_takes_them(tiny: Recipe) -> None:
    experiment, complete = found(Recipe.load(tiny, SHORT))
    trainer = trainer_of(experiment, complete)
    assert trainer.distiller.weights["kd"].value == complete.methods["kd"]["weight"]
