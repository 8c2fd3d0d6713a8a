"""Worker processes: the same bits however they start, and a sentence when they are lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.banked_runs import folder_of_images
from tests.support.processes import Fresh
from understudy.batch import Objects
from understudy.data import FileSource, FileViews, Loader
from understudy.data._workers import received_objects, sent_objects
from understudy.errors import DataError

SPAWNED = """
import multiprocessing, sys
from pathlib import Path
from tests.run.test_workers import loader_of
import torch
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)
    batches = [b.images for [b] in loader_of(Path(sys.argv[1]), 2).epoch(0)]
    torch.save(batches, sys.argv[2])
"""


def environment() -> dict[str, str]:
    """Where a script that is no module of the tests finds them."""
    return {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


def test_workers_that_are_spawned_give_the_same_bits(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "images")
    (tmp_path / "script.py").write_text(SPAWNED)
    words = (tmp_path / "script.py", root, tmp_path / "batches")
    Fresh(*words, environment=environment()).finish()
    expected = [batch.images for [batch] in loader_of(root, 0).epoch(0)]
    batches = torch.load(tmp_path / "batches", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))


class Deadly:
    """Views whose second batch kills the process that makes it."""

    def __init__(self, views: FileViews) -> None:
        self.show, self.parent = views.show, os.getpid()

    def __call__(self, index: torch.Tensor, number: torch.Tensor) -> object:
        if os.getpid() != self.parent and 5 in index:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.show(index, number)


def loader_of(root: Path, workers: int) -> Loader:
    paths = sorted(root.rglob("train/*/*.png"))
    source = FileSource(paths, torch.zeros(len(paths), dtype=torch.int64), ("a",), root=root)
    views = FileViews(source, size=32, seed=0, augment="none")
    return Loader(views, source.labels, batch=4, seed=0, shuffle=False, workers=workers)


def test_a_killed_worker_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(folder_of_images(tmp_path), 1)
    monkeypatch.setattr(loader.views, "show", Deadly(loader.views), raising=False)
    with pytest.raises(DataError, match=r"decodes images was killed .* set data\.workers lower"):
        list(loader.epoch(0))


FULL = """
import os
import sys
from contextlib import suppress
from pathlib import Path
from tests.run.test_workers import loader_of
expected = [b.images for [b] in loader_of(Path(sys.argv[1]), 0).epoch(0)]
import torch
for full in (False, True):
    if full:
        with suppress(OSError), open("/dev/shm/ballast", "wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        # The locks of the workers take a page each, and need room.
        os.truncate("/dev/shm/ballast", Path("/dev/shm/ballast").stat().st_size - 14 * 4096)
    given = [b.images for [b] in loader_of(Path(sys.argv[1]), 2).epoch(0)]
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
print("equal")
"""


def test_a_small_or_full_dev_shm_changes_no_pixel(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "images")
    (tmp_path / "script.py").write_text(FULL)
    inside = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec {sys.executable} "
    command = ["unshare", "-m", "sh", "-c", f"{inside} {tmp_path / 'script.py'} {root}"]
    variables = {**os.environ, **environment()}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mounting a small /dev/shm needs root")
    assert done.stdout == "equal\n", done.stderr[-2000:]


def test_objects_arrive_as_they_were_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    each = tuple(torch.arange(float(4 * n)).reshape(n, 4) for n in (0, 3))
    flags = tuple(torch.ones(n, dtype=torch.bool) for n in (0, 3))
    objects = Objects(torch.tensor([[3, 4], [5, 6]]), each, flags, flags, flags, each)
    monkeypatch.setattr("understudy.data._workers.get_worker_info", lambda: 1)
    packed = sent_objects(objects)
    arrived = received_objects(packed)
    assert arrived is not None
    assert torch.equal(arrived.sizes, objects.sizes)
    for got, asked in zip(arrived._fields(), objects._fields(), strict=True):
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, asked, strict=True)
        )
