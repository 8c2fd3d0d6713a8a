"""A run directory that somebody else made executes no file until the user says so."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from understudy import models, tasks
from understudy.comparison.compare import compare
from understudy.config.recipe import Network, Recipe
from understudy.errors import NetworkError
from understudy.experiment import build
from understudy.experiment.evaluate import evaluate
from understudy.experiment.images import read_images
from understudy.experiment.run_directory import Run
from understudy.reproduction.run_costs import Costs


@pytest.fixture
def received(tmp_path: Path) -> Path:
    """A run directory whose network is a file that leaves a trace when it is executed."""
    folder = tmp_path / "received"
    folder.mkdir()
    (folder / "net.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'executed')!r}).touch()\n"
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(4, num_classes))\n"
    )
    spec = Network(name=f"{folder / 'net.py'}:net")
    recipe = Recipe(student=spec, trust=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "student.safetensors").write_bytes(b"")
    return folder


def executed(folder: Path) -> bool:
    return (folder.parent / "executed").exists()


def test_evaluating_a_received_run_executes_nothing(received: Path) -> None:
    with pytest.raises(NetworkError, match=r"which the run names.*--trust true"):
        evaluate(received)
    with pytest.raises(NetworkError, match="trust the run"):
        Run(received).student()
    assert not executed(received)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_weights_of_a_received_run_execute_nothing(received: Path, role: str) -> None:
    spec = Network(weights=str(received))
    recipe = replace(Recipe(student=Network(name="resnet8")), **{role: spec})
    with pytest.raises(NetworkError, match=rf"The {role} is built by the file .*net\.py"):
        build.experiment(recipe)
    assert not executed(received)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_comparing_with_a_received_run_executes_nothing(
    received: Path, tmp_path: Path, role: str
) -> None:
    parts = {"student": {"name": "resnet8"}, "teacher": {"name": "resnet8"}}
    recipe = {"data": {"images": 40}, **parts, role: {"weights": str(received)}}
    if role == "student":
        torch.save(models.find("resnet8", num_classes=10).module.state_dict(), tmp_path / "t.pth")
        recipe["teacher"] = {"name": "resnet8", "weights": str(tmp_path / "t.pth")}
    with pytest.raises(NetworkError, match=rf"The {role} is built by the file .*net\.py"):
        compare(recipe, methods=["kd"], seeds=[0], out=tmp_path / "out")
    assert not executed(received)


def test_predicting_the_cost_of_a_received_run_executes_nothing(received: Path) -> None:
    recipe = Recipe.load(Recipe(student=Network(weights=str(received))), {"data.images": 40})
    with pytest.raises(NetworkError, match=r"The student is built by the file"):
        Costs(lambda each: read_images(each, tasks.find(each.task)), None).work(recipe)
    assert not executed(received)


def test_a_file_that_the_user_names_is_executed(received: Path) -> None:
    recipe = Recipe(student=Network(name=f"{received / 'net.py'}:net"))
    build.experiment(Recipe.load(recipe, {"data.images": 40}))
    assert executed(received)
