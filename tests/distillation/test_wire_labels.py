"""Labels of a loop of one's own: class numbers, one row per image, or something refused."""

from typing import Any

import pytest
import torch
from timm.data import Mixup
from torch import Tensor
from torch.nn import functional as F

from tests.distillation.small_networks import images, pair
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import wire
from understudy.errors import DataError, RecipeError
from understudy.methods.lshfm import correct
from understudy.methods.nd import nd

CLASSES = 5


def wired(methods: dict[str, Any], task: str = "classification") -> Distiller:
    student, teacher = pair(classes=CLASSES)
    distiller = wire(student, teacher, methods, example=images(2, 3, 16, 16), task=task)
    labels = torch.arange(10) % CLASSES
    distiller.prepare([(images(10, 3, 16, 16), labels)] if task == "classification" else [])
    return distiller


def mixed(batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mix a batch as timm does."""
    mixup = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=CLASSES)
    result: tuple[Tensor, Tensor] = mixup(batch, labels)
    return result


def test_mixup_of_timm_keeps_every_loss_at_its_value() -> None:
    distiller = wired({"nd": 1, "lshfm": {"weight": 1, "terms": "l2"}})
    batch, soft = mixed(images(6, 3, 16, 16), torch.tensor([0, 1, 2, 3, 4, 0]))
    losses = distiller(batch, soft.double())  # of any precision
    student, teacher = distiller.student, distiller.teacher
    assert teacher is not None
    s, t = student.features(batch), teacher.network.features(batch)
    assert torch.allclose(losses["task"], -(soft * s["logits"].log_softmax(1)).sum(1).mean())
    method = distiller.trainable.methods["nd"]
    means = method.class_means
    center = torch.stack([sum(p * c for p, c in zip(row, means, strict=True)) for row in soft])
    expected = nd(s["penultimate"], t["penultimate"], center).mean()
    assert torch.allclose(losses["nd"], expected, atol=1e-6)
    assert losses["nd"] > 0.01
    assert losses["lshfm"] >= 0


def test_rows_of_one_class_are_ordinary_labels_for_every_method() -> None:
    distiller = wired({"nd": 1, "dkd": 1, "lshfm": 1})
    batch, labels = images(4, 3, 16, 16), torch.tensor([0, 4, 2, 1])
    expected = distiller(batch, labels)
    for rows in (F.one_hot(labels, CLASSES), F.one_hot(labels, CLASSES).float()):
        assert distiller(batch, rows) == expected
    assert distiller(batch, labels.int()) == expected


@pytest.mark.parametrize("name", ["dkd", "crd"])
def test_methods_of_one_class_are_refused_by_name_with_soft_labels(name: str) -> None:
    distiller = wired({name: 1})
    batch, soft = mixed(images(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(RecipeError, match=f"'{name}' needs the one class of an image"):
        distiller(batch, soft)


def test_either_of_two_mixed_classes_is_correct_and_of_many_the_largest() -> None:
    logits = torch.eye(4)  # the teacher predicts classes 0 to 3
    from understudy.batch import Batch

    shares = torch.tensor(
        [
            [0.32, 0.62, 0.03, 0.03],  # a mix of classes 0 and 1, smoothed: 0 is one of them
            [0.62, 0.32, 0.03, 0.03],  # so is 1
            [0.62, 0.32, 0.03, 0.03],  # 2 is neither
            [0.10, 0.20, 0.30, 0.40],  # shares of all: 3 is the largest
        ]
    )
    rows = torch.arange(4)
    batch = Batch(torch.zeros(4, 3, 1, 1), shares.argmax(1), rows, rows, soft=shares)
    assert correct({"logits": logits}, batch).tolist() == [True, True, False, True]
    assert correct({"logits": logits[[2]]}, batch[3:]).tolist() == [False]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2]), "There are 2 images and 3 labels"),
        (torch.tensor([0, 5]), "reach from 0 to 5, but the student has 5 logits"),
        (torch.tensor([0, -2]), "reach from -2 to 0"),
        (torch.tensor([0.0, 1.0]), "must be class numbers"),
        (torch.zeros(2, 7), "shares of 5 classes"),
        (torch.ones(2, 5), "sum to 1"),
        (torch.full((2, 5), torch.nan), "sum to 1"),
        (torch.tensor([[2.0, -1, 0, 0, 0]] * 2), "at least 0"),
    ],
)
def test_labels_that_fit_no_class_are_refused(labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        wired({"kd": 1})(images(2, 3, 16, 16), labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([[0.9, 0, 0, 0, 0.1]] * 2), "1 .present., 0 .absent. or -1"),
        (torch.tensor([0, 1]), "one row of 5 values"),
        (torch.zeros(2, 3), "one row of 5 values"),
    ],
)
def test_soft_labels_of_several_classes_are_refused(labels: Tensor, message: str) -> None:
    distiller = wired({"kd": 1}, task="multilabel")
    with pytest.raises(DataError, match=message):
        distiller(images(2, 3, 16, 16), labels)


def test_float_labels_of_several_classes_count_as_whole_ones() -> None:
    distiller = wired({"kd": 1}, task="multilabel")
    labels = torch.tensor([[1, 0, 0, 1, -1], [0, 0, 1, 1, 1]])
    batch = images(2, 3, 16, 16)
    assert distiller(batch, labels) == distiller(batch, labels.float())


def test_prepare_measures_no_mixed_image() -> None:
    distiller = wired({"nd": 1})
    with pytest.raises(DataError, match="without mixup"):
        distiller.prepare([mixed(images(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))])
