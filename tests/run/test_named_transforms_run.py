"""Runs whose views have named transforms: the same with a bank, by workers, and when continued."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_runs import TINY, Stop
from understudy import train
from understudy.errors import Interrupted, RunError

OWN = """
import torch

def rolled():
    return lambda image: image.roll(int(torch.randint(9, ())), 2)
"""


def weights(path: Path, **options: Any) -> bytes:
    return (train(out=path, **options).path / "student.safetensors").read_bytes()


def test_bank_workers_and_a_restart_change_no_bit(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    transforms = ["RandAugment", f"{tmp_path}/own.py:rolled", {"name": "RandomErasing", "p": 0.5}]
    student = TINY["student"] | {"options": {"width": 4}}
    recipe = TINY | {"student": student}
    teacher = train(recipe, {"training.epochs": 1}, out=tmp_path / "teacher").path
    recipe |= {
        "data": TINY["data"] | {"images": 100, "transforms": transforms, "balance": 0.5},
        "training": TINY["training"] | {"class_weights": list(range(1, 11))},
        "teacher": {"weights": str(teacher)},
        "methods": {"kd": {}},
    }
    plain = weights(tmp_path / "plain", recipe=recipe)
    # Of three views, the clean one included, the bank holds two.
    stored = {"bank.path": str(tmp_path / "bank"), "bank.views": 1, "data.workers": 1}
    assert weights(tmp_path / "stored", recipe=recipe, overrides=stored) == plain
    with pytest.raises(Interrupted):
        train(recipe, out=tmp_path / "stopped", callback=Stop(3, signal.SIGTERM))
    (tmp_path / "own.py").write_text(OWN + "\n")
    with pytest.raises(RunError, match=r"The files of data.transforms changed"):
        train(recipe, out=tmp_path / "stopped", resume=True)
    (tmp_path / "own.py").write_text(OWN)
    assert weights(tmp_path / "stopped", recipe=recipe, resume=True) == plain
