"""Interrupt + resume equals an uninterrupted run, bit for bit on the CPU."""

import signal
from pathlib import Path

import pytest

from tests.support.processes import command_line, until
from tests.support.small_runs import Stop, outcome
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted, RunError
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, signal.SIGINT),
        ({}, signal.SIGTERM),
        (
            {"training.ema": 0.9, "training.accumulate": 2, "training.optimizer": "adamw"},
            signal.SIGTERM,
        ),
        (
            {"training.precision": "bf16", "training.channels_last": True, "training.clip": 1.0},
            signal.SIGTERM,
        ),
        ({"student.options": {"width": 8, "dropout": 0.3}}, signal.SIGTERM),
    ],
    ids=["plain-SIGINT", "plain", "ema-accumulate-adamw", "bf16-channels_last-clip", "dropout"],
)
def test_a_signal_saves_and_resume_is_exact(
    tiny: Recipe, tmp_path: Path, changes: dict, number: int
) -> None:
    wanted = Recipe.load(tiny, changes)
    whole = train(wanted, out=tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"continue with `understudy --resume \S+cut`"):
        train(wanted, out=tmp_path / "cut", callback=Stop(10, number))
    resumed = train(wanted, out=tmp_path / "cut", resume=True)
    assert outcome(resumed) == outcome(whole)


def test_kill_9_in_mid_epoch_and_resume_is_exact(tiny: Recipe, tmp_path: Path) -> None:
    wanted = Recipe.load(tiny, {"training.checkpoint_minutes": 0.0})
    whole = train(wanted, out=tmp_path / "whole")
    path = tmp_path / "recipe.yaml"
    path.write_text(wanted.to_yaml())
    # The doctor would stop for this teacher.
    command = ["distill", path, "--out", tmp_path / "killed", "--no-doctor"]
    process = command_line(*command)
    until((tmp_path / "killed" / "last" / "previous.ckpt").exists, process)
    process.kill()
    assert not Run(tmp_path / "killed").finished
    command_line(*command, "--resume").finish()
    assert outcome(Run(tmp_path / "killed")) == outcome(whole)


def test_a_run_is_not_overwritten(tiny: Recipe, tmp_path: Path) -> None:
    train(tiny, out=tmp_path)
    with pytest.raises(RunError, match="already holds a run"):
        train(tiny, out=tmp_path)
    other = Recipe.load(tiny, {"training.lr": 0.1})
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"training.lr: 0.05 there, 0.1 here"):
        train(other, out=tmp_path, resume=True)


def test_a_finished_run_is_returned_at_once(tiny: Recipe, tmp_path: Path) -> None:
    first = train(tiny, out=tmp_path)
    written = (tmp_path / "evaluation.json").stat().st_mtime_ns
    assert train(tiny, out=tmp_path, resume=True) == first
    assert (tmp_path / "evaluation.json").stat().st_mtime_ns == written


def test_a_damaged_checkpoint_is_named_and_the_one_before_still_works(
    tiny: Recipe, tmp_path: Path
) -> None:
    whole = train(tiny, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tiny, out=tmp_path / "cut", callback=Stop(10, signal.SIGTERM))
    damaged = tmp_path / "cut" / "last" / "state.ckpt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(RunError, match=r"damaged.*delete it to continue from previous.ckpt"):
        train(tiny, out=tmp_path / "cut", resume=True)
    damaged.unlink()
    assert outcome(train(tiny, out=tmp_path / "cut", resume=True)) == outcome(whole)
