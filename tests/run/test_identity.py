"""A hundred steps end in the same weights, to the bit, however they are executed on a CPU."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import command_line
from tests.support.small_runs import TINY, Stop
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted
from understudy.experiment import bank_build, bank_parts
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

METHODS: dict[str, Any] = {"lshfm": {"hashes": 64}, "pefd": {}, "kd": {}}
HUNDRED = {"training.epochs": 10, "training.batch": 20, "training.evaluate_every": 10}


def weights(run: Run) -> bytes:
    """The trained student's weights, after as many steps as promised."""
    assert run.history[-1]["step"] == 100
    return (run.path / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def wanted(teacher: Path) -> Recipe:
    """A hundred steps by three methods, one of which measures the teacher first."""
    changes = {"teacher.weights": str(teacher), "methods": METHODS, "data.validation": 0.02}
    return Recipe.load(TINY, HUNDRED | changes)


@pytest.fixture(scope="module")
def online(wanted: Recipe, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that a live teacher leads to."""
    return weights(train(wanted, out=tmp_path_factory.mktemp("online")))


def test_from_a_bank_that_was_filled_in_another_order_and_batch_size(
    wanted: Recipe, online: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banked = Recipe.load(wanted, {"bank.path": str(tmp_path / "bank")})
    monkeypatch.setattr(bank_parts, "BATCH", 200)
    bank_build.fill(banked)
    assert weights(train(banked, out=tmp_path / "run")) == online


def test_resumed_in_the_middle_of_an_epoch_by_another_process(
    wanted: Recipe, online: bytes, tmp_path: Path
) -> None:
    path, out = tmp_path / "wanted.yaml", tmp_path / "run"
    path.write_text(wanted.to_yaml())
    with pytest.raises(Interrupted, match="epoch 5, step 7"):
        train(wanted, out=out, callback=Stop(47, signal.SIGTERM))
    command_line("distill", path, "--out", out, "--resume").finish()
    assert weights(Run(out)) == online


def test_from_files_decoded_by_any_number_of_workers(wanted: Recipe, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{i}.png")
    data = {"source": "folder", "root": str(tmp_path / "images"), "size": 32}
    changes = {"task": "none", "data": data | {"augment": "resized_crop", "images": None}}
    changes |= {"training.batch": 4}
    here, there = (
        train(
            Recipe.load(wanted, changes | {"data.workers": workers}),
            out=tmp_path / f"{workers} workers",
        )
        for workers in (0, 2)
    )
    assert weights(here) == weights(there)
