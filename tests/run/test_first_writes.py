"""A run that stopped at its first writes goes on, and one whose directory is gone says so."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_runs import Stop, outcome
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment.train import train
from understudy.training import checkpoint
from understudy.training.trainer import Trainer


def delete(path: Path) -> None:
    shutil.rmtree(path)


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    shutil.copytree(path, path.with_name("copy"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)


class AfterStep(Stop):
    """Does something to a directory after some steps."""

    def __init__(self, after: int, act: Callable[[Path], None], path: Path) -> None:
        super().__init__(after, 0)
        self.act, self.path = act, path

    def step(self, trainer: Trainer) -> None:
        self.left -= 1
        if self.left == 0:
            self.act(self.path)


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("act", [delete, move, replace])
def test_a_directory_that_is_gone_is_missed_at_the_next_write(
    tiny: Recipe, tmp_path: Path, act: Callable[[Path], None], resumed: bool
) -> None:
    recipe, out = Recipe.load(tiny, {"training.epochs": 3}), tmp_path / "run"
    if resumed:
        train(Recipe.load(tiny, {"training.epochs": 3}), out=out)
        for name in ("evaluation.json", "last/state.ckpt"):
            (out / name).unlink()
    with pytest.raises(RunError, match=r"was deleted or moved while .* can be saved: start again"):
        train(recipe, out=out, resume=resumed, callback=AfterStep(3, act, out))
    assert out.exists() == (act is replace)


@pytest.mark.parametrize("left", ["nothing", "a folder", "half a write"])
def test_a_first_checkpoint_that_was_not_written_is_done_without(
    tiny: Recipe, tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = train(tiny, out=tmp_path / "whole"), tmp_path / "cut"

    def killed(path: Path, content: bytes) -> None:
        if left != "nothing":
            path.parent.mkdir()
        if left == "half a write":
            path.with_name(f".{path.name}.1.partial").write_bytes(content[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_checked", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, out=out)
    assert outcome(train(tiny, out=out, resume=True)) == outcome(whole)
    assert not list(out.rglob("*.partial"))


def test_a_run_without_an_intact_checkpoint_says_how_to_begin_again(
    tiny: Recipe, tmp_path: Path
) -> None:
    train(tiny, out=tmp_path)
    (tmp_path / "evaluation.json").unlink()
    for file in (tmp_path / "last").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(RunError, match=r"delete both to train this run again from its start"):
        train(tiny, out=tmp_path, resume=True)
    shutil.rmtree(tmp_path / "last")
    train(tiny, out=tmp_path, resume=True)
