"""A teacher whose numbers overflow is named as the cause, and is not stored in a bank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import understudy
from tests.support.plain_cnn import factory
from tests.support.small_runs import CNN
from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.distillation.teacher import Teacher
from understudy.errors import DataError, Diverged, NetworkError
from understudy.experiment import bank_build
from understudy.models import Network
from understudy.models.preprocessing import Input


def overflowing(tiny: Recipe, folder: Path) -> Recipe:
    """The teacher with finite weights so large that its outputs are infinite."""
    state = load_file(Path(tiny.teacher.weights) / "student.safetensors")
    scaled = {k: v * 1e30 if k.endswith("weight") else v for k, v in state.items()}
    save_file(scaled, folder / "teacher.safetensors")
    keys = {"name": CNN, "weights": str(folder / "teacher.safetensors"), "options": {"width": 16}}
    changes = {"teacher": keys, "methods": {"kd": {}}, "data.images": 64, "training.epochs": 1}
    return Recipe.load(tiny, changes)


def test_the_teacher_is_the_cause_of_a_run_that_diverges(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"The loss 'kd' .* The teacher .* gives NaN or infinity"):
        understudy.distill(overflowing(tiny, tmp_path), out=tmp_path / "run")
    assert "gives NaN or infinity" in (tmp_path / "run" / "diverged.txt").read_text()


@pytest.mark.parametrize("fill", ["training", "ahead"])
def test_a_bank_stores_nothing_of_it(tiny: Recipe, tmp_path: Path, fill: str) -> None:
    recipe = Recipe.load(overflowing(tiny, tmp_path), {"bank.path": str(tmp_path / "bank")})
    fills: dict[str, Callable[[], object]] = {
        "ahead": lambda: bank_build.fill(recipe, device="cpu"),
        "training": lambda: understudy.distill(recipe, out=tmp_path / "run", device="cpu"),
    }
    with pytest.raises(NetworkError, match=r"gives NaN or infinity in .*, computed in fp32"):
        fills[fill]()


def test_fp16_is_named_where_it_overflows() -> None:
    teacher = Teacher(Network(factory(), input=Input(size=16)))
    teacher.freeze(torch.float16)
    with pytest.raises(NetworkError, match=r"fp16 holds; set training\.teacher_precision to bf16"):
        teacher.refuse_not_finite({"logits": torch.tensor([[1.0, torch.inf]])})


def test_records_are_computed_in_parts_that_fit(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load(tiny, {"data.images": 40, "bank.path": str(tmp_path / "whole")})
    whole = bank_build.fill(recipe, device="cpu")
    sizes, forward = list[int](), Teacher.forward

    def limited(self: Teacher, batch: Batch) -> Any:
        sizes.append(len(batch))
        if len(batch) > 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, batch)

    monkeypatch.setattr(Teacher, "forward", limited)
    parts = bank_build.fill(
        Recipe.load(recipe, {"bank.path": str(tmp_path / "parts")}), device="cpu"
    )
    assert sizes[:3] == [40, 20, 20]
    keys = torch.arange(40), torch.zeros(40, dtype=torch.long)
    read: list[dict[str, Tensor]] = [bank.read(*keys) for bank in (whole, parts)]
    for name, x in read[0].items():
        torch.testing.assert_close(read[1][name], x)


def test_a_loop_of_ones_own_is_told_of_a_single_image() -> None:
    student, teacher = factory(norm=True), factory(norm=True)
    distiller = understudy.wire(student, teacher, {"kd": {}}, example=torch.rand(2, 3, 2, 2))
    distiller.train()
    distiller(torch.rand(2, 3, 2, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match=r"a batch of 1 had one: give larger .*`drop_last=True`"):
        distiller(torch.rand(1, 3, 2, 2), torch.zeros(1, dtype=torch.long))
