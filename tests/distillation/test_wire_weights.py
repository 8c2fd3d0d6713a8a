"""Weights, seeds and logits in a loop of one's own."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.distillation.small_networks import images, pair
from understudy.distillation.distiller import Weight
from understudy.distillation.wire import wire
from understudy.errors import RecipeError, ShapeError

EXAMPLE = images(2, 3, 16, 16)
LABELS = torch.tensor([0, 3])


@pytest.mark.parametrize(
    "weight",
    [2, 2.0, np.float64(2), np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2)],
)
def test_weights_are_numbers_of_any_library(weight: Any) -> None:
    for entry in (weight, {"weight": weight}, {"weight": {"value": weight}}):
        distiller = wire(*pair(), {"kd": entry}, example=EXAMPLE)
        assert distiller.weights["kd"] == Weight(2)
        distiller.weights["kd"] = 3 * weight
        losses = distiller(EXAMPLE, LABELS)
        expected = losses["task"] + 6 * losses["kd"]
        assert torch.allclose(distiller.total(losses), expected)


def test_hyper_parameters_are_numbers_of_any_library() -> None:
    entry = {"weight": 1, "temperature": np.float64(2.5)}
    distiller = wire(*pair(), {"kd": entry}, example=EXAMPLE)
    assert distiller.trainable.methods["kd"].temperature == 2.5


@pytest.mark.parametrize(
    "value", [-1, float("nan"), float("inf"), True, "1", np.array([1.0]), None]
)
def test_other_weights_are_refused_at_once(value: Any) -> None:
    distiller = wire(*pair(), {"kd": 1}, example=EXAMPLE)
    with pytest.raises(RecipeError, match=r"'weights\.kd' is"):
        distiller.weights["kd"] = value
    with pytest.raises(RecipeError, match=r"'methods\.kd\.weight' is"):
        wire(*pair(), {"kd": value}, example=EXAMPLE)


def test_only_losses_that_exist_have_weights() -> None:
    distiller = wire(*pair(), {"kd": 1}, example=EXAMPLE)
    with pytest.raises(RecipeError, match=r"no loss 'kdd' \(did you mean 'kd'\?\)"):
        distiller.weights["kdd"] = 1
    losses = distiller(EXAMPLE, LABELS)
    with pytest.raises(RecipeError, match="no loss 'mine'"):
        distiller.total(losses | {"mine": losses["kd"]})
    with pytest.raises(RecipeError, match="set it to 0"):
        del distiller.weights["kd"]


def test_a_warm_up_without_an_epoch_is_refused() -> None:
    rising = {"value": 4.0, "warmup_epochs": 8}
    distiller = wire(*pair(), {"kd": {"weight": rising}}, example=EXAMPLE)
    losses = distiller(EXAMPLE, LABELS)
    with pytest.raises(RecipeError, match=r"'kd' rises over 8 epochs.*total\(losses, epoch\)"):
        distiller.total(losses)
    for epoch, weight in ((0, 0.0), (2, 1.0), (20, 4.0)):
        expected = losses["task"] + weight * losses["kd"]
        assert torch.allclose(distiller.total(losses, epoch), expected)
    for epoch in (-1, float("nan"), "3"):
        with pytest.raises(RecipeError, match=r"'epoch' is"):
            distiller.total(losses, epoch)
    # Of the losses that are passed, none depends on the epoch.
    assert torch.equal(distiller.total({"task": losses["task"]}), losses["task"])


def test_the_loss_on_labels_has_a_weight_as_well() -> None:
    distiller = wire(*pair(), {"kd": 1}, example=EXAMPLE, task_weight=np.float64(0.25))
    losses = distiller(EXAMPLE, LABELS)
    assert torch.allclose(distiller.total(losses), 0.25 * losses["task"] + losses["kd"])
    with pytest.raises(RecipeError, match="'task_weight' is -1"):
        wire(*pair(), {"kd": 1}, example=EXAMPLE, task_weight=-1)


def hashes(seed: int | None) -> Tensor:
    student, teacher = pair()
    torch.manual_seed(7)
    distiller = wire(student, teacher, {"lshfm": 1}, example=EXAMPLE, seed=seed)
    result: Tensor = distiller.trainable.methods["lshfm"].hash_weight
    return result


def test_a_seed_decides_what_methods_draw_and_torchs_own_without_one() -> None:
    student, teacher = pair()
    torch.manual_seed(8)
    other = wire(student, teacher, {"lshfm": 1}, example=EXAMPLE)
    assert torch.equal(hashes(None), hashes(None))
    assert not torch.equal(hashes(None), other.trainable.methods["lshfm"].hash_weight)
    assert torch.equal(hashes(3), hashes(3))
    assert not torch.equal(hashes(3), hashes(4))


def test_the_logits_of_the_pass_are_given_for_a_loss_of_ones_own() -> None:
    distiller = wire(*pair(), {"kd": 1}, example=EXAMPLE)
    passes: list[int] = []
    distiller.student.module.register_forward_hook(lambda *_: passes.append(1))
    losses, logits = distiller(EXAMPLE, LABELS, return_logits=True)
    assert passes == [1]
    assert torch.equal(logits, distiller.student(EXAMPLE))
    own = distiller.total(losses) + logits.square().mean()
    own.backward()
    assert all(p.grad is not None for p in distiller.student.parameters())


def test_a_student_without_classes_has_no_logits_to_give() -> None:
    student, teacher = pair()
    distiller = wire(student[:-1], teacher[:-1], {"pkt": 1}, example=EXAMPLE, task="none")
    with pytest.raises(ShapeError, match="has no logits"):
        distiller(EXAMPLE, return_logits=True)


def test_a_distiller_can_be_saved_whole() -> None:
    distiller = wire(*pair(), {"kd": 1, "fitnet": {"feature": "stage1"}}, example=EXAMPLE)
    again = pickle.loads(pickle.dumps(distiller))
    assert again(EXAMPLE, LABELS) == distiller(EXAMPLE, LABELS)
    again.load_state_dict(distiller.state_dict())
