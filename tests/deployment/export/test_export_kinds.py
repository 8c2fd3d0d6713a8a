"""Students of every kind are exported: layers that stay, a folded embedding, classes, vectors."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import understudy
from understudy.deployment.export import checking, torch_export
from understudy.deployment.export.graph import _resized, _table
from understudy.deployment.export.verified_files import Options, Subject, write_program
from understudy.deployment.saved_student import open_student


@pytest.fixture(scope="module")
def teacher(saved_comparison: Path) -> dict:
    root = saved_comparison.parent
    return {
        "data": {"source": "folder", "root": str(root / "images"), "size": 32},
        "teacher": {
            "name": "timm:test_resnet",
            "weights": str(root / "teacher.safetensors"),
            "size": 64,
        },
        "student": {"name": "timm:test_resnet", "size": 64},
        "training": {"epochs": 1, "batch": 6, "lr": 0.01},
    }


@pytest.mark.parametrize(
    ("methods", "student"),
    [({"lshfm": {"hashes": 16}}, "timm:test_efficientnet"), ({"letkd": {}}, "timm:test_resnet")],
    ids=["folded embedding", "kept layers"],
)
def test_students_of_methods(teacher: dict, methods: dict, student: str, tmp_path: Path) -> None:
    recipe = {**teacher, "name": "kind", "methods": methods}
    run = understudy.distill(recipe, {"student.name": student}, out=tmp_path / "run", device="cpu")
    done = understudy.export(run, to="torch-export", out=tmp_path / "exported")
    parity = done.parity["torch-export"]
    assert (parity.images, parity.changed) == (9, 0)
    assert parity.difference <= 1e-5


def test_a_backbone_without_classes_gives_vectors(saved_comparison: Path, tmp_path: Path) -> None:
    run = saved_comparison / "kd" / "seed0"
    labelled = open_student(run)
    config = replace(labelled.config, num_classes=None, classes=())
    network = timm.create_model("test_efficientnet", num_classes=0).eval()
    saved = replace(labelled, module=network, config=config)
    images = checking.images_of(run, saved, None, count=4)
    _, parity = write_program(Subject(saved, Options(), images, tmp_path))
    assert checking.decision_of(saved) == "vector"
    assert (parity.images, parity.decisions) == (4, 0)
    assert parity.largest > 0


def test_a_sigmoid_ends_the_graph_of_several_classes(saved_labeller: Path, tmp_path: Path) -> None:
    options = {"to": "torch-export", "probabilities": True}
    done = understudy.export(saved_labeller, out=tmp_path, **options)
    saved, parity = open_student(saved_labeller), done.parity["torch-export"]
    assert parity.decisions == parity.images * len(saved.config.classes)
    images = torch.randn(2, 3, *[saved.config.preprocessing.size] * 2)
    (probabilities,) = torch_export.runner(tmp_path / "student.pt2")(images)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, saved.module(images).sigmoid())


@pytest.mark.parametrize("limit", [160, 240, 800])
def test_an_exported_detector_resizes_as_torchvision_does(limit: int) -> None:
    longest = 2 * limit
    own = GeneralizedRCNNTransform(limit, longest, [0.0], [1.0]).eval()
    draw = torch.Generator().manual_seed(limit)
    for height, width in torch.randint(40, 400, (12, 2), generator=draw).tolist():
        image = torch.rand(1, height, width, generator=draw)
        resized, _ = _resized(_table(limit), _table(longest), image)
        assert torch.equal(resized, own.resize(image)[0])
