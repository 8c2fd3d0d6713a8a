"""SimKD against a plain loop, and the student it leaves: trained, deployed and loaded again."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.support.plain_cnn import factory
from tests.vectors.build import Outputs, batch
from understudy import models
from understudy.config.recipe import Recipe
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, RecipeError, ShapeError
from understudy.experiment.train import train
from understudy.layers.reused_head import LAST_MAP
from understudy.methods.simkd import SimKD
from understudy.models import Input, Network

STUDENT = shapes("student", logits=3, **{LAST_MAP: (2, 2, 2)})
TEACHER = shapes("teacher", logits=3, **{LAST_MAP: (2, 4, 4)})
IMAGES = torch.rand(4, 3, 32, 32)


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **{LAST_MAP: (2, 2, 2)}), random(3, **{LAST_MAP: (2, 4, 4)})
    target = F.avg_pool2d(teacher[LAST_MAP], 2).flatten().tolist()
    pairs = zip(student[LAST_MAP].flatten().tolist(), target, strict=True)
    loss = SimKD(STUDENT, TEACHER)(student, teacher, batch(3))
    assert loss.item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / (3 * 8))


PAIRS = {
    "narrower": ("resnet8", "resnet14"),
    "other widths": ("wrn_16_1", "resnet8x4"),
    "smaller map": ("vgg8", "resnet8x4"),
    "larger map": ("resnet8", "vgg8"),
    "conv after the stages": ("mobilenetv2", "vgg8"),
}


def pair(name: str) -> tuple[Network, Network]:
    student, teacher = (models.find(n, num_classes=5, size=32) for n in PAIRS[name])
    return student, teacher


@pytest.mark.parametrize("name", PAIRS)
def test_the_teachers_classifier_reads_the_students_map(name: str) -> None:
    student, teacher = pair(name)
    stages = dict(student.shapes)
    distiller = wire(student, teacher, {"simkd": 1}, example=IMAGES)
    distiller.prepare([(IMAGES, torch.zeros(4).long())])
    losses = distiller(IMAGES, torch.tensor([0, 1, 2, 3]))
    losses["simkd"].backward()
    features = student.features(IMAGES)
    channels, _, _ = features[LAST_MAP].shape[1:]
    assert channels == teacher.shapes[LAST_MAP][0]
    read = F.linear(
        features[LAST_MAP].mean((2, 3)), teacher.classifier_weight, teacher.classifier_bias
    )
    torch.testing.assert_close(features["logits"], read)
    assert not student.classifier_weight.requires_grad
    assert student.shapes["stage1"] == stages["stage1"]
    last = max(stage for stage in stages if stage.startswith("stage") and "/" not in stage)
    assert student.shapes[last] == stages[last], "a stage is what it was before the new head"


@pytest.mark.parametrize("name", PAIRS)
def test_the_deployed_student_loads_and_gives_the_same(name: str, tmp_path: Path) -> None:
    student, teacher = pair(name)
    wire(student, teacher, {"simkd": 1}, example=IMAGES)
    student.features(IMAGES)  # batch norms have seen something
    plain = student.plain()
    save_file(plain.state_dict(), tmp_path / "student.safetensors")
    again = models.find(
        PAIRS[name][0], num_classes=5, size=32, weights=str(tmp_path / "student.safetensors")
    ).eval()
    student.eval()
    assert torch.equal(again(IMAGES), student(IMAGES))


def test_a_transformer_is_refused_in_one_sentence() -> None:
    vit = models.find(
        "timm:vit_tiny_patch16_224",
        num_classes=5,
        size=32,
        options={"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 4, "num_heads": 3},
    )
    cnn = models.find("resnet8", num_classes=5, size=32)
    for student, teacher in ((vit, cnn), (cnn, vit)):
        with pytest.raises(ShapeError, match="penultimate/map"):
            SimKD.extend(student, teacher.shapes)


def test_a_teacher_whose_classifier_reads_something_else_is_refused() -> None:
    features = random(4, penultimate=2, logits=3, **{LAST_MAP: (2, 4, 4)})
    method = SimKD(STUDENT, TEACHER)
    with pytest.raises(ShapeError, match="average"):
        method.prepare(Outputs(features))
    features["penultimate"] = features[LAST_MAP].mean((2, 3))
    method.prepare(Outputs(features))


def test_a_student_whose_classifier_reads_something_else_is_refused() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    student = Network(nn.Sequential(*layers), input=Input(size=8))
    with pytest.raises((NetworkError, ShapeError), match="another head"):
        SimKD.extend(student, shapes("teacher", logits=3, **{LAST_MAP: (6, 4, 4)}))


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="a new head"):
        SimKD(shapes("student", logits=3, **{LAST_MAP: (5, 2, 2)}), TEACHER)
    with pytest.raises(ShapeError, match="3 classes"):
        SimKD(STUDENT, shapes("teacher", logits=7, **{LAST_MAP: (2, 4, 4)}))
    with pytest.raises(RecipeError, match="'factor'"):
        SimKD(STUDENT, TEACHER, factor=9)
    student, teacher = pair("narrower")
    SimKD.extend(student, teacher.shapes)
    with pytest.raises(NetworkError, match="no layer added yet"):
        SimKD.extend(student, teacher.shapes)


def test_a_narrower_student_reaches_the_end_and_its_resumption(
    tiny: Recipe, tmp_path: Path
) -> None:
    changes = {"methods": {"simkd": {}}, "training.epochs": 1, "data.images": 64}
    recipe = Recipe.load(tiny, changes)
    run = train(recipe, out=tmp_path)
    bare = run.evaluation["layers"]["plain"]["parameters"]
    assert bare == sum(x.numel() for x in factory(width=8).parameters())
    assert run.evaluation["layers"]["student"]["parameters"] > bare
    (tmp_path / "evaluation.json").unlink()
    train(recipe, out=tmp_path, resume=True)
    assert run.student(trust=True)(torch.zeros(1, 3, 28, 28)).shape == (1, 10)
