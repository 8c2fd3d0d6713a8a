"""Weights of classes in the loss on labels: the formulas, and that parts of a batch add up."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy import tasks
from understudy.batch import Batch, Mixed
from understudy.config.recipe import Training
from understudy.errors import RecipeError
from understudy.tasks import Task

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2] + [-1] * 4)
SEVERAL = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, -1, 0]])
NAMES = ("a", "b", "c")


def task(setting: Any, labels: Tensor = LABELS, name: str = "classification") -> Task:
    return tasks.find(name, Training(class_weights=setting)).weighted(setting, labels, NAMES)


def batch(labels: Tensor, smoothing: float = 0.0, mixed: Mixed | None = None) -> Batch:
    rows = torch.arange(len(labels))
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, rows, rows, mixed, smoothing)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    weights = task("balanced").class_weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))


def test_a_list_is_scaled_to_the_mean_1_over_the_training_labels() -> None:
    weights = task((1.0, 2.0, 4.0)).class_weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([1.0, 2.0, 4.0]) / 1.6)
    assert weights[LABELS[LABELS >= 0]].mean() == pytest.approx(1)


def test_the_loss_of_an_image_counts_by_the_weight_of_its_class() -> None:
    made, logits = task("balanced"), torch.randn(14, 3, generator=torch.Generator().manual_seed(0))
    weights = made.class_weights
    assert weights is not None
    expected = sum(
        -logits[i].log_softmax(0)[label] * weights[label]
        for i, label in enumerate(LABELS.tolist())
        if label >= 0
    )
    loss = made.loss({"logits": logits}, batch(LABELS), weights)
    torch.testing.assert_close(loss, expected / 10)
    halves = [
        made.loss({"logits": logits[r]}, batch(LABELS)[r], weights)
        for r in (LABELS < 1, LABELS > 0)
    ]
    # Six labelled images in one part, four in the other.
    torch.testing.assert_close(loss, (6 * halves[0] + 4 * halves[1]) / 10)  # type: ignore[operator]
    plain = made.loss({"logits": logits}, batch(LABELS))
    torch.testing.assert_close(plain, F.cross_entropy(logits[:10], LABELS[:10]))


def test_mixed_and_smoothed_labels_are_weighted_each() -> None:
    made, logits = task((1.0, 2.0, 4.0)), torch.randn(4, 3)
    own, other, weights = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 1, 0]), made.class_weights
    mixed = Mixed(other, torch.full((4,), 0.3))
    parts = [
        F.cross_entropy(logits, labels, weights, label_smoothing=0.1, reduction="none")
        for labels in (own, other)
    ]
    loss = made.loss({"logits": logits}, batch(own, 0.1, mixed), weights)
    torch.testing.assert_close(loss, (0.3 * parts[0] + 0.7 * parts[1]).mean())


def test_present_and_absent_classes_have_equal_parts_if_balanced() -> None:
    made = task("balanced", SEVERAL, "multilabel")
    weights = made.class_weights
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([[2, 0.75, 1], [2 / 3, 1.5, 1]]))
    logits = torch.randn(4, 3)
    every = F.binary_cross_entropy_with_logits(logits, (SEVERAL == 1).float(), reduction="none")
    chosen = torch.where(SEVERAL == 1, weights[1], weights[0])
    expected = (every * chosen)[SEVERAL >= 0].mean()
    torch.testing.assert_close(made.loss({"logits": logits}, batch(SEVERAL), weights), expected)


def test_a_list_weighs_present_classes() -> None:
    weights = task((3.0, 3.0, 3.0), SEVERAL, "multilabel").class_weights
    assert weights is not None
    # Four of eleven known labels are present.
    mean = (4 * 3 + 7) / 11
    torch.testing.assert_close(weights, torch.tensor([[1.0] * 3, [3.0] * 3]) / mean)


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("classification", (1.0, 2.0), "has 2 weights, and there are 3 classes: .* a, b, c"),
        ("classification", (0.0, 0.0, 0.0), "gives 0 to every class"),
        ("detection", "balanced", "classification and multilabel"),
        ("none", "balanced", "classification and multilabel"),
    ],
)
def test_weights_without_a_meaning_are_refused(name: str, setting: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        task(setting, LABELS, name)


def test_no_weights_leave_the_task_as_it_is() -> None:
    made = tasks.find("classification")
    assert made.weighted("none", LABELS, NAMES) is made
    assert made.class_weights is None
