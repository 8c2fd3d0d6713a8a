"""Runs with timm's networks: a teacher without classes, and a student with a distillation token."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tests.support.small_images import CLOTHES
from understudy.config.recipe import Recipe
from understudy.errors import ShapeError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.train import train

SMALL: dict[str, Any] = {
    "data": {"source": "folder", "root": CLOTHES, "images": 64},
    "training": {"epochs": 2, "batch": 32, "lr": 0.02, "schedule": "constant"},
}
RESNET = {"stem_width": 8, "channels": [8, 8, 16, 16]}
DEIT = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher in a checkpoint of DINO."""
    torch.manual_seed(0)
    state = timm.create_model("resnet10t", num_classes=0, **RESNET).state_dict()
    path = tmp_path_factory.mktemp("weights") / "dino.pth"
    torch.save({"teacher": {f"backbone.{key}": x for key, x in state.items()}}, path)
    options = {"num_classes": 0, **RESNET}
    return {"name": "timm:resnet10t", "weights": str(path), "size": 32, "options": options}


def small(**keys: Any) -> Recipe:
    return Recipe.from_dict(SMALL | keys)


def test_a_teacher_without_classes_teaches(headless: dict[str, Any], tmp_path: Path) -> None:
    student = {"name": "resnet8", "options": {"widths": [4, 4, 6, 8]}}
    methods = {"lshfm": {"hashes": 64, "selective": False}, "pefd": {"activation": "none"}}
    run = train(small(student=student, teacher=headless, methods=methods), out=tmp_path / "run")
    assert all(math.isfinite(x) for line in run.history for x in line["losses"].values())
    assert run.evaluation["teacher"]["metrics"] == {}
    assert run.evaluation["fidelity"]["cka"] > 0
    assert evaluate(run.path).metrics == pytest.approx(run.evaluation["metrics"])
    published = small(student=student, teacher=headless, methods={"lshfm": {}})
    with pytest.raises(ShapeError, match="set selective to false"):
        train(published, out=tmp_path / "selective")


def test_a_student_with_a_distillation_token(tmp_path: Path) -> None:
    resnet = {"name": "timm:resnet10t", "size": 32, "options": RESNET}
    teacher = train(small(student=resnet), out=tmp_path / "teacher").path
    student = {"name": "timm:deit_tiny_distilled_patch16_224", "size": 32, "options": DEIT}
    wanted = small(
        student=student,
        teacher={"weights": str(teacher)},
        methods={"deit": {}, "nd": {"weight": 1.5}},
        data=SMALL["data"] | {"mixup": 0.8, "cutmix": 1.0},
        training=SMALL["training"] | {"label_smoothing": 0.1, "optimizer": "adamw"},
    )
    run = train(wanted, out=tmp_path / "run")
    assert {*run.history[0]["losses"]} == {"task", "deit", "nd", "total"}
    assert all(math.isfinite(x) for line in run.history for x in line["losses"].values())
    assert evaluate(run.path).metrics == pytest.approx(run.evaluation["metrics"])
