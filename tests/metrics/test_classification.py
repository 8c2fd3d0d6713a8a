"""Metrics against hand-made answers and plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.metrics import classification


def test_accuracies_count_images() -> None:
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 3, 2, 1], [1, 0, 3, 2], [3, 2, 1, 0]])
    labels = torch.tensor([0, 2, 2, 3])
    assert [classification.top_k(logits, labels, k=k) for k in (1, 2, 4)] == [0.5, 0.75, 1.0]
    assert classification.per_class_accuracy(logits, labels) == [1.0, None, 0.5, 0.0]


def test_calibration_error_of_known_confidences() -> None:
    # Confidence 0.9 at accuracy 0.5, confidence 0.6 at accuracy 1: gaps 0.4 and 0.4.
    sure, unsure = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.6, 0.4]).log()
    logits = torch.stack([sure, sure, unsure, unsure])
    assert classification.calibration_error(logits, torch.tensor([0, 1, 0, 0])) == pytest.approx(
        0.4
    )


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 15]))
def test_calibration_error_equals_plain_loops(seed: int, bins: int) -> None:
    torch.manual_seed(seed)
    logits, labels = 2 * torch.randn(30, 4).double(), torch.randint(4, (30,))
    confidence, predicted = logits.softmax(1).max(1)
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(30) if b / bins < confidence[i] <= (b + 1) / bins]
        total += abs(sum(float(predicted[i] == labels[i]) - float(confidence[i]) for i in inside))
    assert classification.calibration_error(logits, labels, bins) == pytest.approx(total / 30)


def test_average_precisions_of_a_small_ranking() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    present = torch.tensor([[0], [1], [1], [0]])
    assert classification.coco_ap(scores, present).item() == pytest.approx((1 / 2 + 2 / 3) / 2)
    # The envelope lifts the first precision to the second; the image marked 0 is left out.
    marked = torch.tensor([[-1], [1], [1], [0]])
    assert classification.voc_ap(scores, marked).item() == pytest.approx(2 / 3)
    assert classification.voc_ap(
        scores, torch.tensor([[0], [1], [1], [-1]])
    ).item() == pytest.approx(1)


def test_precision_and_recall_of_decisions() -> None:
    scores = torch.tensor([[0.9, 0.9], [0.2, 0.5], [0.7, 0.1]])
    targets = torch.tensor([[1, 0], [1, 1], [0, 0]])
    found = classification.coco_prf(scores, targets)
    assert found == pytest.approx((0.5, 2 / 3, 4 / 7, 0.5, 0.75, 0.6))
    # Above 0.5, the score of 0.5 does not count.
    strict = classification.coco_prf(scores, targets, 0.51)
    assert pytest.approx((1 / 3, 1 / 3)) == (strict.OP, strict.OR)


def test_fidelity_of_a_student_that_only_scales_its_teacher() -> None:
    teacher = torch.randn(10, 6)
    student = 0.25 * teacher
    assert classification.agreement(student, teacher) == 1
    assert classification.cosine_mean(student, teacher) == pytest.approx(1)
    assert classification.norm_ratio(student, teacher) == pytest.approx(0.25)
    assert classification.kl(teacher, teacher) == pytest.approx(0)
    assert classification.kl(student, teacher) > 0


def test_no_images_give_zero_and_not_an_error() -> None:
    none = torch.zeros(0, 3)
    labels = torch.zeros(0, dtype=torch.long)
    assert classification.top_k(none, labels) == classification.calibration_error(none, labels) == 0
    assert classification.norm_ratio(none, none) == classification.agreement(none, none) == 0
    assert (
        classification.voc_ap(none, none).tolist()
        == classification.coco_ap(none, none).tolist()
        == [0, 0, 0]
    )


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 10, 30]))
def test_average_precisions_of_voc_equal_plain_loops(seed: int, images: int) -> None:
    torch.manual_seed(seed)
    scores, targets = torch.randperm(images).double(), torch.randint(-1, 2, (images,))
    ranked = [int(targets[i]) for i in scores.argsort(descending=True) if targets[i] != 0]
    positives = max(ranked.count(1), 1)
    points = [(ranked[:n].count(1), ranked[:n].count(1) / n) for n in range(1, len(ranked) + 1)]

    def best(hits: float) -> float:
        return max((p for h, p in points if h >= hits), default=0.0)

    column = (scores.unsqueeze(1), targets.unsqueeze(1))
    every = [best(n) for n in range(1, positives + 1)]
    assert classification.voc_ap(*column).item() == pytest.approx(sum(every) / positives)
    # Hits are whole: a recall of n/10 is reached from n · positives / 10 on, rounded up.
    eleven = [best(-(-n * positives // 10)) for n in range(11)]
    assert classification.voc_ap(*column, points="eleven").item() == pytest.approx(sum(eleven) / 11)


def test_eleven_points_of_a_small_ranking() -> None:
    # Precisions 1 and 2/3 at recalls 0.5 and 1: six points (0 to 0.5) of one, five of the other.
    column = torch.tensor([[0.9], [0.8], [0.7]]), torch.tensor([[1], [-1], [1]])
    found = classification.voc_ap(*column, points="eleven")
    assert found.item() == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert classification.voc_ap(*column).item() == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_without_positives_is_left_out_of_the_means_over_classes() -> None:
    scores = torch.tensor([[0.9, 0.9], [0.8, 0.1]])
    targets = torch.tensor([[1, 0], [0, 0]])
    assert math.isnan(classification.coco_prf(scores, targets).CR)
    found = classification.coco_prf(scores, targets, released=False)
    assert found == pytest.approx((1 / 3, 1, 1 / 2, 1 / 2, 1, 2 / 3))
    nowhere = torch.zeros_like(targets)
    assert classification.coco_prf(scores, nowhere, released=False) == pytest.approx([0] * 6)
    assert classification.coco_prf(scores, 1 - nowhere, released=False) == pytest.approx(
        classification.coco_prf(scores, 1 - nowhere)
    )
