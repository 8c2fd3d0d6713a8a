"""Feature richness against plain loops, and between detectors."""

from math import exp

import pytest
import torch

from tests.support.forms import random, shapes
from tests.support.small_detectors import detector, scene
from tests.vectors.build import batch
from understudy.distillation.wire import wire
from understudy.errors import ShapeError
from understudy.methods.frs import FRS

OURS = {"p3": (2, 4, 3), "p4": (2, 2, 2), "p5": (2, 1, 1), "penultimate": 6}
THEIRS = {"p3": (3, 4, 3), "p3/scores": (5, 4, 3), "p4": (4, 2, 2), "p4/scores": (5, 2, 2)}


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **OURS), random(3, **THEIRS)
    method = FRS(shapes("s", **OURS), shapes("t", **THEIRS)).double()
    assert method.reads == ("p3", "p4", "p3/scores", "p4/scores")
    expected = 0.0
    for name, x in method.projected(student).items():
        total = weights = 0.0
        _, height, width = THEIRS[name]
        for i in range(3):
            for row in range(height):
                for column in range(width):
                    logits = teacher[f"{name}/scores"][i, :, row, column].tolist()
                    seen = max(1 / (1 + exp(-y)) for y in logits)
                    apart = (x - teacher[name])[i, :, row, column].tolist()
                    total += seen * sum(d * d for d in apart)
                    weights += seen
        expected += total / weights
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected)


def test_a_position_without_score_is_not_compared() -> None:
    method = FRS(shapes("s", **OURS), shapes("t", **THEIRS), stages=("p3",)).double()
    student, teacher = random(1, **OURS), random(1, **THEIRS)
    teacher["p3/scores"].fill_(-torch.inf)[0, 2, 1, 1] = 0.0
    before = method(student, teacher, batch(1))
    teacher["p3"][0, :, 3, 2] += 5
    assert method(student, teacher, batch(1)) == before
    teacher["p3"][0, :, 1, 1] += 5
    assert method(student, teacher, batch(1)) != before


def test_says_what_cannot_be_weighed() -> None:
    student, teacher = shapes("s", **OURS), shapes("t", **THEIRS)
    with pytest.raises(ShapeError, match="t scores no map that s has: use detectors"):
        FRS(shapes("s", stage1=(2, 4, 4)), teacher)
    with pytest.raises(ShapeError, match="no feature 'p5'"):
        FRS(student, teacher, stages=("p5",))
    with pytest.raises(ShapeError, match="position by position"):
        FRS(student, teacher, stages=("p4:p3",))


@pytest.mark.parametrize("family", ["fasterrcnn", "fcos", "retinanet"])
def test_detectors_teach_by_their_own_scores(family: str) -> None:
    student = detector(family, "timm:test_resnet", seed=1)
    teacher = detector(family, "resnet18", seed=2, channels=64)
    distiller = wire(student, teacher, {"frs": {}}, task="detection").train()
    method = distiller.trainable.methods["frs"]
    assert len(method.pairs) == 5
    seen = distiller.student.observe(scene())
    theirs = distiller.teacher.at(seen.locations, method.reads)
    assert "penultimate" not in theirs
    assert theirs["p4/scores"].shape[2:] == theirs["p4"].shape[2:] == seen.features["p4"].shape[2:]
    loss = distiller(scene())["frs"]
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.any() for x in distiller.student.module.backbone.fpn.parameters())


def test_levels_without_a_pyramid_are_refused() -> None:
    pair = (detector("ssdlite", "resnet18") for _ in range(2))
    with pytest.raises(ShapeError, match="use detectors with a feature pyramid"):
        wire(*pair, {"frs": {}}, task="detection")
