"""Modules and calls of a loop of one's own that cannot work are refused with cause and fix."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.distillation.small_networks import images, network, pair
from understudy import Run
from understudy.distillation.wire import wire
from understudy.errors import DataError, NetworkError, RecipeError, RunError

IMAGES, LABELS = images(4, 3, 32, 32), torch.arange(4)


def lazy() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4))


def without_values() -> nn.Module:
    with torch.device("meta"):
        return network()


def exported() -> nn.Module:
    return torch.export.export(network(), (IMAGES,)).module()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lazy, "has a lazy layer whose 2.weight has no shape yet: call the module once"),
        (without_values, "is on the device 'meta', where 0.weight has no values: build it on"),
        (exported, "was made by torch.export: give the module that was exported"),
    ],
)
def test_a_module_without_values_or_hooks_is_refused(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(NetworkError, match=f"The teacher .*{message}"):
        wire(network(), build(), {"kd": 1}, example=IMAGES)
    with pytest.raises(NetworkError, match=f"The student .*{message}"):
        wire(build(), network(), {"kd": 1}, example=IMAGES)


def test_a_student_that_would_not_be_trained_is_refused() -> None:
    student = network().requires_grad_(False)
    with pytest.raises(NetworkError, match=r"takes a gradient.*student\.requires_grad_\(\)"):
        wire(student, network(), {"kd": 1}, example=IMAGES)
    student[-1].requires_grad_(True)
    distiller = wire(student, network(), {"kd": 1}, example=IMAGES)
    distiller.total(distiller(IMAGES, LABELS)).backward()


def test_no_losses_have_no_total() -> None:
    distiller = wire(*pair(), {"kd": 1}, example=IMAGES)
    with pytest.raises(RecipeError, match="no losses to add up: give what a call of the distiller"):
        distiller.total({})


def test_arrays_and_other_channels_are_named_as_what_they_are() -> None:
    distiller = wire(*pair(), {"kd": 1}, example=IMAGES)
    with pytest.raises(DataError, match=r"images hold a ndarray, .* `torch.from_numpy` converts"):
        distiller(IMAGES.numpy(), LABELS)
    with pytest.raises(DataError, match=r"have 1 channel, but the `example` .* has 3: give images"):
        distiller(IMAGES[:, :1], LABELS)
    with pytest.raises(DataError, match="have 6 channels, but the `example`"):
        distiller(torch.cat([IMAGES, IMAGES], 1), LABELS)


@pytest.mark.parametrize("part", ["the module", "its statistics"])
def test_shared_statistics_are_refused(part: str) -> None:
    student, teacher = pair()
    student[1] = norm = nn.BatchNorm2d(8, affine=False)
    teacher[1] = norm if part == "the module" else nn.BatchNorm2d(8, affine=False)
    teacher[1].running_var = norm.running_var
    message = re.escape("share the statistics 1.running_") + ".*copy.deepcopy"
    with pytest.raises(NetworkError, match=message):
        wire(student, teacher, {"kd": 1}, example=IMAGES)


def test_text_is_the_directory_of_a_run(tmp_path: Path) -> None:
    assert Run(str(tmp_path)).path == tmp_path  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"is no run directory: it has no recipe.yaml"):
        Run(str(tmp_path)).student()  # type: ignore[arg-type]
