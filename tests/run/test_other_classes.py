"""A teacher of other classes than the student's teaches, but is not held against its labels."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.small_runs import CNN
from tests.support.small_scenes import Scenes
from understudy.config.recipe import Recipe
from understudy.data import MemorySource
from understudy.experiment.evaluate import evaluate
from understudy.experiment.images import Images
from understudy.experiment.train import train
from understudy.reporting import report

TRAINING = {"epochs": 1, "batch": 8, "lr": 0.01}
WHOLE: dict[str, Any] = {"student": {"name": CNN, "options": {"width": 8}}, "training": TRAINING}
BOXES: dict[str, Any] = {
    "task": "detection",
    "data": {"augment": "flip"},
    "student": {
        "name": "ssdlite",
        "options": {"backbone": "timm:test_resnet", "size": 96, "extra": [32, 32, 32, 32]},
    },
    "training": TRAINING | {"batch": 2},
}


def noise(classes: int, *, task: str) -> Images:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(255, (16, 3, 16, 16), generator=draw, dtype=torch.uint8)
    labels = torch.arange(16) % classes
    if task == "multilabel":
        labels = torch.nn.functional.one_hot(labels, classes)
    source = MemorySource(pixels, labels, [f"{k} of {classes}" for k in range(classes)])
    return Images(source, source)


def scenes(classes: int) -> Images:
    """Scenes, with classes that no object is of behind those drawn."""
    found = Scenes(4, seed=0)
    found.classes = tuple(f"{k} of {classes}" for k in range(classes))
    found.labels = torch.nn.functional.pad(found.labels, (0, classes - 3))
    return Images(found, found)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize("classes", [3, 6])
def test_whole_images_are_compared_but_for_the_classes(
    tmp_path: Path, task: str, classes: int
) -> None:
    wanted = Recipe.load(WHOLE, {"task": task, "data.augment": "flip"})
    teacher = train(wanted, out=tmp_path / "teacher", images=noise(classes, task=task)).path
    taught = {"teacher.weights": str(teacher), "methods": {"pefd": {}}, "trust": True}
    run = train(
        Recipe.load(wanted, taught),
        out=tmp_path / "student",
        images=noise(4, task=task),
    )
    found = run.evaluation
    assert found["metrics"]
    assert found["teacher"]["metrics"] == {}
    assert found["fidelity"]["agreement"] is None
    assert found["fidelity"]["cosine"] is not None


def test_boxes_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = train(Recipe.from_dict(BOXES), out=tmp_path / "teacher", images=scenes(5)).path
    taught = {"teacher.weights": str(teacher), "methods": {"pefd": {}}}
    run = train(Recipe.load(BOXES, taught), out=tmp_path / "student", images=scenes(3))
    assert run.evaluation["metrics"]
    assert run.evaluation["teacher"]["metrics"] == {}
    assert run.evaluation["fidelity"] is None
    assert "AP50" in report(run.path).read_text(encoding="utf-8")
    monkeypatch.setattr("understudy.experiment.build.read_test_images", lambda *_, **__: scenes(3))
    assert evaluate(run.path, {"trust": True}, device="cpu").fidelity is None
