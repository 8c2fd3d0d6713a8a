"""Detectors in a loop of one's own: targets without boxes, precision, other heads."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.small_detectors import detector
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, UnderstudyError

IMAGES = [torch.rand(3, 64, 64), torch.rand(3, 64, 48)]
BOX = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}


def pair(family: str = "fasterrcnn") -> tuple[nn.Module, nn.Module]:
    """Build a student and another detector as its teacher."""
    student, teacher = (detector(family, "resnet18", seed=seed).module for seed in (1, 2))
    return student, teacher


def test_no_boxes_may_be_given_as_an_empty_tensor() -> None:
    distiller = wire(*pair("ssdlite"), {"kd": 1}, task="detection").train()
    empty = {"boxes": torch.tensor([]), "labels": torch.tensor([])}
    assert distiller(IMAGES, [empty, BOX]) == distiller(IMAGES, [NONE, BOX])


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (IMAGES, None, "2 images and 0 targets: a detector needs"),
        (torch.rand(2, 3, 64, 64), None, "needs boxes"),
        (IMAGES, [BOX], "2 images and 1 targets"),
        (IMAGES, [BOX, {"boxes": BOX["boxes"]}], "no tensor 'labels'"),
        (
            IMAGES,
            [BOX, {**BOX, "boxes": torch.rand(1, 5)}],
            r"shape \(1, 5\).*must be \(boxes, 4\)",
        ),
        (IMAGES, [BOX, {**BOX, "labels": torch.tensor([1, 1])}], r"the labels \(2,\)"),
        ([(x * 255).byte() for x in IMAGES], [BOX, BOX], "one is uint8"),
        ([x.flatten() for x in IMAGES], [BOX, BOX], "one is float32 of shape"),
    ],
)
def test_targets_that_a_detector_cannot_read_are_refused(
    images: Any, targets: Any, message: str
) -> None:
    distiller = wire(*pair("ssdlite"), {"kd": 1}, task="detection").train()
    with pytest.raises(UnderstudyError, match=message):
        distiller(images, targets)


def test_faster_rcnn_learns_under_autocast_on_a_cpu_as_it_does_without() -> None:
    distiller = wire(*pair(), {"kd": 1, "lshfm": {"terms": "l2"}}, task="detection").train()
    torch.manual_seed(3)
    full = distiller(IMAGES, [BOX, BOX])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(3)
        losses = distiller(IMAGES, [BOX, BOX])
        distiller.total(losses).backward()
    assert losses.keys() == full.keys()
    for name in ("task/classifier", "kd", "lshfm"):
        assert torch.allclose(losses[name].float(), full[name], rtol=0.2, atol=0.05)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_predictor_that_is_no_linear_layer_is_refused_with_its_name(role: str) -> None:
    modules: dict[str, Any] = dict(zip(("student", "teacher"), pair(), strict=True))
    heads = modules[role].roi_heads
    old = heads.box_predictor.cls_score
    heads.box_predictor.cls_score = nn.Sequential(nn.Linear(old.in_features, 8), nn.Linear(8, 4))
    with pytest.raises(NetworkError, match=r"class scores by a Sequential.*`cls_score`"):
        wire(**modules, methods={"kd": 1}, task="detection")


def test_a_dense_head_that_is_no_convolution_is_refused() -> None:
    student, teacher = pair("fcos")
    head: Any = student.head
    head.classification_head.cls_logits = nn.Sequential(head.classification_head.cls_logits)
    with pytest.raises(NetworkError, match=r"scores by a Sequential.*`cls_logits`"):
        wire(student, teacher, {"kd": 1}, task="detection")


def test_detectors_keep_full_precision() -> None:
    student, teacher = pair("ssdlite")
    with pytest.raises(NetworkError, match=r"weights in bfloat16.*autocast"):
        wire(student, deepcopy(teacher).bfloat16(), {"kd": 1}, task="detection")
