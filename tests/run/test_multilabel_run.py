"""Runs on images of several classes: trained, interrupted, aligned, compared and evaluated."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.small_runs import CNN, Stop, outcome
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted, RecipeError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.experiment.train import distill, train
from understudy.reporting import report

SIDE, NAMES = 16, ("red", "green", "blue")
SEVERAL: dict[str, Any] = {
    "name": "several",
    "trust": True,  # the teacher is a run directory, which names the file of its network
    "task": "multilabel",
    "data": {"source": "csv", "augment": "squash_flip", "jitter": 0.2},
    "student": {"name": CNN, "options": {"width": 8}},
    "training": {"epochs": 2, "batch": 32, "optimizer": "adamw", "lr": 0.01, "schedule": "cosine"},
}
METHODS: dict[str, Any] = {"lshfm": {}, "kd": {}, "nd": {}, "pefd": {}, "fitnet": {}}


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of images with squares of some colours, whose labels are not all known."""
    folder, random = tmp_path_factory.mktemp("colours"), torch.Generator().manual_seed(0)
    rows = [",".join(("split", "file_name", *NAMES))]
    for number in range(120):
        image = torch.randint(90, (3, SIDE, SIDE), generator=random, dtype=torch.uint8)
        there = torch.rand(3, generator=random) < 0.4
        for channel in there.nonzero().flatten().tolist():
            top, left = torch.randint(SIDE - 6, (2,), generator=random).tolist()
            image[channel, top : top + 6, left : left + 6] = 255
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        labels = [str(int(y)) for y in there]
        if number % 10 == 0:
            labels[number // 10 % 3] = ""
        rows.append(",".join(["train" if number < 80 else "test", f"{number}.png", *labels]))
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder / "labels.csv"


@pytest.fixture(scope="session")
def master(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained teacher."""
    changes = {
        "data.root": str(colours),
        "student.options": {"width": 16},
        "training.epochs": 20,
    }
    return train(Recipe.load(SEVERAL, changes), out=tmp_path_factory.mktemp("runs") / "teacher")


@pytest.fixture
def wanted(colours: Path, master: Run) -> Recipe:
    changes = {
        "data.root": str(colours),
        "teacher.weights": str(master.path),
        "methods": METHODS,
    }
    return Recipe.load(SEVERAL, changes)


def changed(wanted: Recipe, **keys: Any) -> Recipe:
    return Recipe.load(wanted, {key.replace("__", "."): x for key, x in keys.items()})


def test_several_classes_are_learned(master: Run) -> None:
    found = master.evaluation["metrics"]
    assert found["mAP"] > 80
    assert found["loss"] < 0.5
    assert {"mAP_coco", "CP", "CR", "CF1", "OP", "OR", "OF1"} < found.keys()
    assert len(master.evaluation["per_class"]) == 3
    assert master.evaluation["classes"] == list(NAMES)


def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    wanted: Recipe, tmp_path: Path
) -> None:
    whole = distill(wanted, out=tmp_path / "whole")
    assert all(math.isfinite(x) for line in whole.history for x in line["losses"].values())
    assert {"task", "total", *METHODS} == whole.history[-1]["losses"].keys()
    with pytest.raises(Interrupted):
        train(wanted, out=tmp_path / "parts", callback=Stop(4, signal.SIGTERM))
    assert outcome(train(wanted, out=tmp_path / "parts", resume=True)) == outcome(whole)
    asymmetric = changed(wanted, training__multilabel_loss="asymmetric")
    assert outcome(train(asymmetric, out=tmp_path / "asymmetric")) != outcome(whole)


def test_a_bank_teaches_what_the_teacher_does(wanted: Recipe, tmp_path: Path) -> None:
    wanted = changed(wanted, methods={"lshfm": {}, "kd": {}, "nd": {}})
    banked = changed(wanted, bank__path=str(tmp_path / "bank"), bank__views=2)
    live = outcome(train(wanted, out=tmp_path / "live"))
    assert outcome(train(banked, out=tmp_path / "banked")) == live


def test_two_stages_align_an_embedding_and_train_everything(wanted: Recipe, tmp_path: Path) -> None:
    aligning = {"lshfm": {"weight": 1, "embed": "always"}}
    wanted = changed(wanted, training__epochs=4, training__lr=0.03)
    first = changed(wanted, methods=aligning, task_weight=0.0, training__only=["*.embedding.*"])
    ran = distill(first, out=tmp_path / "first")
    losses = [line["losses"]["lshfm"] for line in ran.history]
    assert losses[-1] < losses[0]
    second = changed(
        wanted, methods={"lshfm": {}}, student__weights=str(tmp_path / "first" / "last")
    )
    run = distill(second, out=tmp_path / "second")
    again = evaluate(run.path, {"trust": True})
    for name, value in run.evaluation["metrics"].items():
        assert again.metrics[name] == pytest.approx(value, abs=1e-3), name


def test_a_comparison_ranks_by_average_precision(wanted: Recipe, tmp_path: Path) -> None:
    wanted = changed(wanted, training__epochs=4)
    found = compare(wanted, methods=["lshfm", "kd"], seeds=[0], out=tmp_path)
    assert found.metric == "mAP"
    assert found.teacher["metrics"]["mAP"] > 80
    assert [arm["name"] for arm in found.arms] == ["control", "lshfm", "kd"]
    fidelity = {arm["name"]: arm["fidelity"] for arm in found.arms}
    assert all(0 < arm["agreement"][0] < 1 for arm in fidelity.values())
    assert 0 < fidelity["kd"]["kl"][0] < fidelity["control"]["kl"][0]
    report([tmp_path])
    page = (tmp_path / "report.html").read_text()
    assert "mAP" in page
    assert json.loads((tmp_path / "comparison.json").read_text())["metric"] == "mAP"


def test_methods_for_one_class_are_refused_before_anything_is_trained(
    wanted: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="'dkd' has no meaning where classes do not exclude"):
        compare(wanted, methods=["kd", "dkd"], seeds=[0], out=tmp_path)
    assert not list(tmp_path.iterdir())
