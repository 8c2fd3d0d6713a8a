"""From a folder of image files, whatever the networks want them to be, to a student that learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.plain_cnn import factory
from tests.support.small_runs import CNN
from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.errors import ShapeError, UnderstudyError
from understudy.experiment import build
from understudy.experiment.evaluate import evaluate
from understudy.experiment.train import train

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}


def draw(path: Path, colour: tuple[int, int, int], random: np.random.Generator) -> None:
    """A noisy image of 40 pixels in one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + random.normal(0, 40, (40, 40, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 16 training and 14 test images of each."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in {"train": 16, "test": 14}.items():
        for name, colour in COLOURS.items():
            for i in range(count):
                draw(root / split / name / f"{i}.png", colour, random)
    return root


@pytest.fixture(scope="session")
def unlabelled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training images in one flat folder, the test images likewise."""
    root = tmp_path_factory.mktemp("flat")
    for file in folder.rglob("*.png"):
        split, name = file.relative_to(folder).parts[:2]
        (root / split).mkdir(exist_ok=True)
        (root / split / f"{name}{file.name}").write_bytes(file.read_bytes())
    return root


@pytest.fixture(scope="session")
def cnn_teacher(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small teacher trained on the folder."""
    wanted = Recipe.from_dict(
        {
            "data": {"source": "folder", "root": str(folder), "size": 32, "augment": "flip"},
            "student": {"name": CNN, "options": {"width": 16}},
            "training": {"epochs": 15, "batch": 16, "lr": 0.05, "schedule": "cosine"},
        }
    )
    run = train(wanted, out=tmp_path_factory.mktemp("teachers") / "cnn")
    assert run.evaluation["metrics"]["top1"] > 80
    return run.path


def distillation(root: Path, teacher: Any, **methods: Any) -> dict[str, Any]:
    return {
        "trust": True,  # the teacher is a run directory, which names the file of its network
        "data": {"source": "folder", "root": str(root), "size": 32, "augment": "flip"},
        "student": {"name": CNN, "options": {"width": 8}},
        "teacher": teacher,
        "methods": methods,
        "training": {"epochs": 6, "batch": 16, "lr": 0.02, "schedule": "cosine"},
    }


def test_foreign_networks_of_different_sizes_read_the_same_files(
    folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "teacher.pth"
    torch.save({"state_dict": torchvision.models.resnet18(num_classes=3).state_dict()}, weights)
    teacher = {"name": "torchvision:resnet18", "weights": str(weights), "size": 64}
    content = distillation(folder, teacher, kd={}, pefd={}, lshfm={"hashes": 64})
    content["student"] = {"name": "timm:mobilenetv3_small_050", "size": 32}
    changes = {"data.augment": "resized_crop", "data.size": 48, "data.workers": 2}
    wanted = Recipe.load(content, changes | {"training.epochs": 1, "training.batch": 24})
    made = build.experiment(wanted)
    assert (made.distiller.student.input.size, made.teacher and made.teacher.input.size) == (32, 64)
    run = train(wanted, out=tmp_path / "run")
    assert run.environment["classes"] == sorted(COLOURS)
    assert run.evaluation["fidelity"]["agreement"] is not None
    student = timm.create_model("mobilenetv3_small_050", num_classes=3)
    student.load_state_dict(load_file(run.path / "student.safetensors"), strict=True)
    alone = replace(wanted, data=replace(wanted.data, workers=0))
    again = train(alone, out=tmp_path / "again")
    assert (again.path / "student.safetensors").read_bytes() == (
        run.path / "student.safetensors"
    ).read_bytes(), "worker processes change nothing"


@pytest.mark.parametrize(
    "methods",
    [
        {"lshfm": {"hashes": 128}},
        {"pefd": {}},
        {"nd": {}},
        {"fitnet": {}},
        {"kd": {"temperature": 1.0}},
    ],
    ids=lambda methods: next(iter(methods)),
)
def test_unlabelled_images_teach(
    unlabelled: Path, cnn_teacher: Path, tmp_path: Path, methods: dict[str, Any]
) -> None:
    teacher = {"weights": str(cnn_teacher)}
    wanted = Recipe.load(
        distillation(unlabelled, teacher, **methods) | {"task": "none"},
        {"training.epochs": 20, "training.lr": 0.05},
    )
    run = train(wanted, out=tmp_path)
    first, *_, last = run.history
    assert last["losses"].keys() == {*methods, "total"}
    assert last["losses"]["total"] < first["losses"]["total"]
    if "lshfm" in methods:
        assert last["fidelity"]["cosine"] > 0.8 > first["fidelity"]["cosine"]
    if "kd" in methods:
        assert last["fidelity"]["kl"] < first["fidelity"]["kl"]
    assert last["fidelity"]["cka"] > 0.7
    assert run.evaluation["metrics"] == {}
    assert run.environment["classes"] == sorted(COLOURS), "of the teacher"
    agreement = run.evaluation["fidelity"]["agreement"]
    assert (evaluate(tmp_path, {"trust": True}).fidelity or {})["agreement"] == agreement


def test_a_control_uses_only_the_labelled_images_and_a_method_all(
    folder: Path, cnn_teacher: Path, tmp_path: Path
) -> None:
    content = distillation(folder, {"weights": str(cnn_teacher)}, pefd={})
    wanted = Recipe.load(content, {"data.labels": 6, "data.labelled_share": 0.25})
    control = recipe.without_methods(wanted)
    for used, share in ((wanted, 0.25), (control, 1.0)):
        made = build.experiment(used)
        assert int((made.train.labels >= 0).sum()) == 6
        seen = [batch for step in made.train.epoch(0) for batch in step]
        assert len(seen) == 3, "the same budget"
        for batch in seen:
            assert float(batch.labelled.float().mean()) == share
        first, *_, last = train(used, out=tmp_path / str(len(used.methods))).history
        assert last["losses"]["task"] < first["losses"]["task"]


@pytest.fixture(scope="session")
def other_head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher of 100 classes that are not those of the folder."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teachers") / "other.safetensors"
    save_file(factory(num_classes=100, width=16).state_dict(), path)
    return {"name": CNN, "options": {"width": 16}, "weights": str(path)}


@pytest.mark.parametrize(
    "methods", [{"pefd": {}}, {"nd": {}}, {"lshfm": {"selective": False, "hashes": 64}}]
)
def test_a_teacher_of_other_classes_teaches_its_features(
    folder: Path, other_head: dict[str, Any], tmp_path: Path, methods: dict[str, Any]
) -> None:
    content = distillation(folder, other_head, **methods)
    run = train(Recipe.load(content, {"training.epochs": 1}), out=tmp_path)
    assert build.experiment(run.recipe).distiller.student.num_classes == 3
    assert run.evaluation["fidelity"]["agreement"] is None
    assert run.evaluation["fidelity"]["cka"] > 0
    assert run.evaluation["teacher"]["metrics"] == {}


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"kd": {}}, "kd compares logits of the same classes"),
        ({"lshfm": {}}, "selective form of lshfm .* has 3 classes .* has 100"),
    ],
)
def test_a_method_that_reads_its_logits_refuses_it(
    folder: Path, other_head: dict[str, Any], methods: dict[str, Any], words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        build.experiment(Recipe.from_dict(distillation(folder, other_head, **methods)))


def test_without_labels_such_a_teacher_gives_the_student_its_classes(
    folder: Path, other_head: dict[str, Any], tmp_path: Path
) -> None:
    content = distillation(folder, other_head, kd={"weight": 1.0}, lshfm={"hashes": 64})
    wanted = Recipe.load(content | {"task": "none"}, {"training.epochs": 1})
    run = train(wanted, out=tmp_path)
    assert run.environment["classes"] == []
    agreement = run.evaluation["fidelity"]["agreement"]
    assert agreement is not None
    assert (evaluate(tmp_path, {"trust": True}).fidelity or {})["agreement"] == agreement


def _changed_images(folder: Path, teacher: Path) -> None:
    (folder / "train" / "red" / "new.png").write_bytes(
        (folder / "train" / "red" / "0.png").read_bytes()
    )


def _changed_teacher(folder: Path, teacher: Path) -> None:
    torch.manual_seed(teacher.exists())
    save_file(factory(num_classes=3, width=16).state_dict(), teacher)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_changed_images, "The training images changed since"),
        (_changed_teacher, "The teacher changed since"),
    ],
)
def test_a_run_is_not_continued_on_something_else(
    tmp_path: Path, change: Callable[[Path, Path], None], words: str
) -> None:
    root, random = tmp_path / "images", np.random.default_rng(0)
    for split in ("train", "test"):
        for name, colour in COLOURS.items():
            for i in range(4):
                draw(root / split / name / f"{i}.png", colour, random)
    teacher = tmp_path / "teacher.safetensors"
    _changed_teacher(root, teacher)
    content = distillation(
        root, {"name": CNN, "options": {"width": 16}, "weights": str(teacher)}, pefd={}
    )
    wanted: Recipe = Recipe.load(content, {"training.epochs": 1, "training.batch": 4})
    whole = train(wanted, out=tmp_path / "run")
    (whole.path / "evaluation.json").unlink()
    assert train(wanted, out=whole.path, resume=True).finished
    (whole.path / "evaluation.json").unlink()
    change(root, teacher)
    with pytest.raises(UnderstudyError, match=words):
        train(wanted, out=whole.path, resume=True)
