"""A device that this machine does not have is refused by every command, and none is replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import understudy
from tests.support.plain_cnn import factory
from understudy.cli.commands import main
from understudy.config.recipe import Recipe
from understudy.distillation.device_names import find_device
from understudy.errors import RecipeError
from understudy.experiment import bank_build, bank_plan
from understudy.training.devices import processes

ABSENT = ["banana", "cuda:99", "mps:7", "xla", "cpu:3", ""]


@pytest.mark.parametrize("name", ABSENT)
def test_a_device_that_is_absent_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"no device '{name}'.*; this machine has: cpu"):
        find_device(name)


def test_a_misspelt_device_is_suggested() -> None:
    with pytest.raises(RecipeError, match=r"\(did you mean 'cpu'\?\)"):
        find_device("cpuu")


def test_devices_that_exist() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("cpu:0").type == "cpu"  # as a process of several is told
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert find_device(None).type == expected


def test_gpus_are_chosen_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("cuda") == torch.device("cuda")
    with pytest.raises(RecipeError, match="has: cpu, cuda:0, cuda:1"):
        find_device("cuda:2")


def test_a_run_on_the_cpu_follows_one_on_another_device() -> None:
    processes("cpu").device = torch.device("meta")
    assert processes("cpu").device == torch.device("cpu")


COMMANDS: dict[str, Callable[[Any, Path], Any]] = {
    "train": lambda tiny, out: understudy.train({"student": "resnet8"}, out=out, device="banana"),
    "distill": lambda tiny, out: understudy.distill(tiny, out=out, device="banana"),
    "compare": lambda tiny, out: understudy.compare(tiny, out=out, device="banana"),
    "demo": lambda tiny, out: understudy.demo(out=out, device="banana"),
    "evaluate": lambda tiny, out: understudy.evaluate(tiny.teacher.weights, device="banana"),
    "bank plan": lambda tiny, out: bank_plan.plan(tiny, device="banana"),
    "wire": lambda tiny, out: wired().to("banana"),
    "wire, by keyword": lambda tiny, out: wired().to(device=torch.device("cuda", 99)),
}


def wired() -> Any:
    return understudy.wire(factory(), factory(), {"kd": {}}, example=torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it_before_anything_is_written(
    tiny: Recipe, tmp_path: Path, command: str
) -> None:
    with pytest.raises(RecipeError, match=r"There is no device '(banana|cuda:99)'"):
        COMMANDS[command](tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_it_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bank.path", str(tmp_path / "bank"), "--device", "cuda:99"]
    with pytest.raises(SystemExit) as stopped:
        main(["bank", "build", "fashion/demo", *words])
    assert stopped.value.code == 2
    assert "There is no device 'cuda:99'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("action", [bank_build.fill, bank_build.verify])
def test_an_address_without_a_bank_in_it_is_refused(
    tiny: Recipe, action: Callable[[Recipe], Any]
) -> None:
    recipe = Recipe.load(tiny, {"bank.path": "s3://bucket/bank"})
    with pytest.raises(understudy.UnderstudyError, match=r"bank\.path"):
        action(recipe)
