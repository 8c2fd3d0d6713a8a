"""Networks of weights from elsewhere are measured, and so are folders without splits."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.support.trained_students import NAMES
from understudy.cli.commands import _folded, main
from understudy.comparison.result import Comparison
from understudy.config.recipe import Recipe
from understudy.errors import DataError, NetworkError, RecipeError, RunError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train


@pytest.fixture(scope="module")
def images(saved_comparison: Path) -> Path:
    return saved_comparison.parent / "images"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model("test_resnet", num_classes=3).eval()


def keys(root: Path, weights: Path, **others: Any) -> dict[str, Any]:
    data = {"source": "folder", "root": str(root), "size": 48}
    return {
        "student": {"name": "timm:test_resnet", "weights": str(weights)},
        "data": data,
        **others,
    }


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a state dict, as any training loop writes it; it names no classes."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(network.state_dict(), path)
    return path


def test_a_teacher_is_measured_as_in_a_comparison(saved_comparison: Path) -> None:
    recipe = Run(saved_comparison / "kd" / "seed0").recipe
    changes = {"student": asdict(recipe.teacher), "data": asdict(recipe.data)}
    alone = evaluate(None, changes, device="cpu")
    of_comparison = Comparison.load(saved_comparison).teacher["metrics"]
    assert alone.metrics == pytest.approx(of_comparison)
    assert (alone.split, alone.images, alone.origin) == ("test", 9, "folder: test")


@pytest.mark.parametrize("file", ["", "student.safetensors"])
def test_a_network_of_a_run_sees_what_it_was_trained_with(
    saved_comparison: Path, file: str
) -> None:
    """Its name alone would build it for larger images."""
    run = Run(saved_comparison / "kd" / "seed0")
    student = {"name": run.recipe.student.name, "weights": str(run.path / file)}
    changes = {"student": student, "data": asdict(run.recipe.data)}
    assert evaluate(None, changes, device="cpu").metrics == pytest.approx(run.evaluation["metrics"])


def test_a_folder_without_splits_is_measured_as_a_whole(
    images: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = evaluate(None, keys(images / "test", weights), device="cpu")
    of_split = evaluate(None, keys(images, weights), device="cpu")
    assert whole.metrics == pytest.approx(of_split.metrics)
    assert (whole.images, whole.origin) == (9, "folder: all, without splits")
    words = ["--student.name", "timm:test_resnet", "--student.weights", str(weights)]
    words += ["--data.source", "folder", "--data.root", str(images / "test"), "--data.size", "48"]
    main(["evaluate", *words, "--device", "cpu"])
    said = capsys.readouterr().out
    assert "enlarges the images of 48 pixels (data.size) to 160" in caplog.text
    assert "9 (folder: all, without splits)" in said
    assert f"{whole.metrics['top1']:.3f}" in said
    half = evaluate(None, keys(images / "test", weights) | {"data.validation": 0.34}, device="cpu")
    assert (half.images, half.origin) == (3, "held out of folder: train by data.validation=0.34")


def test_classes_are_put_in_the_order_of_the_data(
    images: Path, network: nn.Module, weights: Path, tmp_path: Path
) -> None:
    """Weights that name their classes are matched with the folders, whatever their order."""
    order = [2, 0, 1, 0]  # four classes, of which the last is in no folder
    state = dict(network.state_dict())
    state |= {key: state[key][order].clone() for key in ("fc.weight", "fc.bias")}
    named = tmp_path / "named.safetensors"
    names = [*(NAMES[k] for k in order[:3]), "zebra"]
    save_file(state, named, metadata={"classes": json.dumps(names)})
    expected = evaluate(None, keys(images, weights), device="cpu").metrics
    assert evaluate(None, keys(images, named), device="cpu").metrics == pytest.approx(expected)


def test_a_student_is_measured_on_any_labelled_folder(saved_comparison: Path, images: Path) -> None:
    run = saved_comparison / "kd" / "seed0"
    other = evaluate(run, {"data.root": str(images / "test")}, device="cpu")
    assert other.metrics == pytest.approx(Run(run).evaluation["metrics"])
    assert other.origin == "folder: all, without splits"


def test_features_that_the_run_compared_behind_an_embedding_are_named() -> None:
    of_run = {"cosine": 0.3, "cka": 0.7, "kl": None}
    assert _folded({"cosine": 0.2, "cka": 0.7, "kl": None}, of_run) == ""
    said = _folded({"cosine": None, "cka": 0.6, "kl": None}, of_run)
    assert said.startswith("cosine: the run compared features behind an embedding layer")


def test_held_out_images_stay_held_out_where_the_folder_moved(tmp_path: Path, images: Path) -> None:
    """Of the images that a student was trained on, none is measured."""
    shutil.copytree(images / "train", tmp_path / "a")
    recipe = Recipe.load(
        {
            "data": {"source": "folder", "root": str(tmp_path / "a"), "size": 32},
            "student": {"name": "timm:test_resnet"},
            "training": {"epochs": 1, "batch": 8},
        },
        {"data.validation": 0.25},
    )
    run = train(recipe, out=tmp_path / "run", device="cpu")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = evaluate(run, {"data.root": str(tmp_path / "b")}, device="cpu")
    assert (moved.images, moved.split) == (3, "validation")
    others = evaluate(run, {"data.root": str(images / "test")}, device="cpu")
    assert (others.images, others.split) == (9, "test")


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"student.weights": ""}, RecipeError, "Only a trained network can be evaluated"),
        ({"student.options": {"num_classes": 0}}, NetworkError, "has no classifier"),
        ({"student.weights": "nowhere.pth"}, NetworkError, "correct --student.weights"),
        ({"data.root": "few"}, DataError, "The data have 2 classes but timm:test_resnet has 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    changes: dict[str, Any],
    error: type[Exception],
    sentence: str,
    images: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "few" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "few" / name / "0.png")
    with pytest.raises(error) as raised:
        evaluate(None, keys(images, weights) | changes, device="cpu")
    assert sentence in str(raised.value)


def test_a_file_in_place_of_a_run_names_the_flags(weights: Path) -> None:
    with pytest.raises(RunError, match="is a file, not a run directory: give weights by"):
        evaluate(weights)
