"""Differences of two networks: the largest one, and decisions that change."""

from typing import Any

import pytest
import torch

from understudy.deployment.export.parity import Comparison, Decision, Parity
from understudy.errors import NetworkError

LOGITS = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
BOXES = {
    "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]),
    "labels": torch.tensor([1, 2]),
    "scores": torch.tensor([0.9, 0.8]),
}


@pytest.mark.parametrize(
    ("decision", "decisions", "changed"), [("class", 2, 1), ("classes", 4, 1), ("vector", 0, 0)]
)
def test_decisions_are_counted(decision: Decision, decisions: int, changed: int) -> None:
    comparison = Comparison(decision, threshold=0.5)
    comparison.add(LOGITS, LOGITS + torch.tensor([[0.0, 0.0], [2.5, 0.0]]))
    parity = comparison.result("test images")
    assert (parity.images, parity.difference, parity.largest) == (2, 2.5, 3.0)
    assert (parity.decisions, parity.changed) == (decisions, changed)


def test_a_difference_is_allowed_up_to_the_size_of_the_outputs() -> None:
    comparison = Comparison("class")
    comparison.add(100 * LOGITS, 100 * LOGITS + 0.02)
    comparison.result("test images").check("student.onnx")  # 0.02 of 300
    comparison.add(100 * LOGITS, 100 * LOGITS + 0.05)
    with pytest.raises(NetworkError, match=r"student.onnx does not compute .* 5.0e-02"):
        comparison.result("test images").check("student.onnx")


@pytest.mark.parametrize(
    ("difference", "largest", "words"),
    [
        (2.3e-4, 70.4, "2.3e-04 (3.3e-06 of the largest output, 70.4; above 0.0001, but within"),
        (3.2e-5, 12.9, "3.2e-05 (2.5e-06 of the largest output, 12.9) on"),
        (3.9e-6, 1.0, "3.9e-06 (outputs up to 1) on"),
    ],
)
def test_a_difference_is_told_absolute_and_relative(
    difference: float, largest: float, words: str
) -> None:
    assert words in Parity("test images", 600, difference, largest, 600, 0).sentence


def test_nan_is_no_equal_output() -> None:
    comparison = Comparison("class")
    comparison.add(LOGITS, LOGITS * torch.nan)
    with pytest.raises(NetworkError, match="does not compute"):
        comparison.result("test images").check("student.onnx")


def test_other_shapes_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"returns \(2, 1\) where the student returns \(2, 2\)"):
        Comparison("class").add(LOGITS, LOGITS[:, :1])


def test_detections_are_compared_with_the_nearest_of_their_class() -> None:
    comparison = Comparison("objects")
    swapped = {name: x.flip(0) for name, x in BOXES.items()}
    comparison.add_detections(BOXES, swapped | {"scores": torch.tensor([0.8, 0.9004])})
    parity = comparison.result("test images")
    assert parity.difference == pytest.approx(0.0004, abs=1e-6)
    assert (parity.decisions, parity.changed) == (2, 0)
    comparison.add_detections(BOXES, BOXES | {"labels": torch.tensor([1, 1])})
    comparison.add_detections(BOXES, {name: x[:1] for name, x in BOXES.items()})
    parity = comparison.result("test images")
    assert (parity.images, parity.decisions, parity.changed) == (3, 6, 2)


def detections(*rows: tuple[float, float]) -> dict[str, Any]:
    """Boxes of ten pixels that begin at so many pixels, with their scores."""
    boxes = torch.tensor([[x, 0.0, x + 10, 10.0] for x, _ in rows])
    scores = torch.tensor([score for _, score in rows])
    return {"boxes": boxes, "labels": torch.ones(len(rows), dtype=torch.long), "scores": scores}


@pytest.mark.parametrize(
    ("other", "changed", "tied"),
    [
        (detections((0, 0.9), (33, 0.5 + 5e-8), (60, 0.3)), 1, 1),  # the other one of two equals
        (detections((0, 0.9), (33, 0.4), (60, 0.3)), 1, 0),
        (detections((0, 0.9), (80, 0.5), (60, 0.3)), 1, 0),  # equal, but elsewhere
        (detections((0, 0.9), (30, 0.5), (80, 0.3)), 1, 1),  # the last of which there is room
        (detections((0, 0.9), (60, 0.3)), 1, 0),  # missing
        (detections((0, 0.9), (30, 0.5)), 1, 0),
    ],
)
def test_what_rounding_decides_is_told_from_what_it_does_not(
    other: dict[str, Any], changed: int, tied: int
) -> None:
    comparison = Comparison("objects")
    comparison.add_detections(detections((0, 0.9), (30, 0.5), (60, 0.3)), other)
    parity = comparison.result("test images")
    assert (parity.decisions, parity.changed, parity.tied) == (3, changed, tied)
    assert ("equal up to rounding" in parity.sentence) == bool(tied)
