"""A directory has one writer: a second start is refused, and a killed one leaves nothing locked."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.processes import Fresh, until
from understudy import files
from understudy.comparison.demo import demo
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment.train import distill, train
from understudy.locks import sole_writer

HOLDING = """
import os, sys, time
from pathlib import Path
from understudy.locks import sole_writer
folder = Path(sys.argv[1])
with sole_writer(folder):
    if sys.argv[2:] and os.fork() == 0:  # a worker, which notices the end of its parent late
        time.sleep(1)
        os._exit(0)
    (folder / "held").touch()
    time.sleep(600)
"""


def start(command: str, recipe: Recipe, out: Path) -> object:
    commands: dict[str, Callable[[], object]] = {
        "train": lambda: train(recipe, out=out),
        "distill": lambda: distill(recipe, out=out),
        "demo": lambda: demo(seeds=[0], out=out),
    }
    return commands[command]()


@pytest.mark.parametrize("command", ["train", "distill", "demo"])
def test_a_second_start_is_refused_and_names_the_first(
    tiny: Recipe, tmp_path: Path, command: str
) -> None:
    place = tmp_path / "teacher" if command == "demo" else tmp_path
    who = rf"process {os.getpid()} on {socket.gethostname()} \(since \d+.*\)"
    with (
        sole_writer(place),
        pytest.raises(RunError, match=rf"is being written by {who}: wait .* another --out"),
    ):
        start(command, tiny, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"teacher"}


@pytest.mark.parametrize("worker", [(), ("with a worker",)], ids=["alone", "with a worker"])
def test_a_killed_process_leaves_nothing_locked(tmp_path: Path, worker: tuple[str, ...]) -> None:
    first = Fresh("-c", HOLDING, tmp_path, *worker)
    until((tmp_path / "held").exists, first)
    with pytest.raises(RunError, match=f"by process {first.pid} on"), sole_writer(tmp_path):
        pass
    first.kill()
    with sole_writer(tmp_path):
        assert f'"pid": {os.getpid()},' in (tmp_path / ".lock.json").read_text()


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "last"):
        folder.mkdir(exist_ok=True)
        (folder / ".state.ckpt.1234.partial").touch()
    with sole_writer(tmp_path):
        assert not list(tmp_path.rglob("*.partial"))


def test_a_directory_in_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "runs" / "new"):
        assert (tmp_path / "runs" / "new").is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_said_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with sole_writer(tmp_path):
        files.write(tmp_path / "file", "content")
    assert "has no locks" in log.text
    assert (tmp_path / "file").read_text() == "content"
