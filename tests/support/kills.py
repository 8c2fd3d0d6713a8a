"""Runs that are killed, or meet a full disk, at a chosen write; and what became of them afterwards.

    python -m tests.support.kills FOLDER POINTS COMMAND

prints one line of JSON for each point. The library is imported once; every run is a fork.
"""

import errno
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.banked_runs import folder_of_images
from tests.support.small_runs import CNN
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.deployment.export.export_student import export
from understudy.errors import UnderstudyError
from understudy.experiment import bank_build
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

REFUSED, RAW = 3, 4
"""Exit status after a sentence, and after any other error."""

Act = Callable[[], None]


class Writes:
    """Counts the writes of this process, and acts at one of them.

    Args:
        number: Number of that write, from 1.
        act: What to do there: `before`, `torn` or `after` it, and then `kill` or `full`.
    """

    def __init__(self, number: int, act: str) -> None:
        self.left, self.count = number, 0
        self.when, self.what = act.split() if act else ("", "")
        self._patch(os, "replace", None)
        self._patch(os, "mkdir", None)
        self._patch(os, "truncate", None)
        self._patch(os, "posix_fallocate", None)
        self._patch(os, "fsync", lambda file: os.ftruncate(file, os.fstat(file).st_size // 2))
        pwrite = os.pwrite
        self._patch(os, "pwrite", lambda f, data, at: pwrite(f, data[: len(data) // 2], at))

    def _patch(self, module: Any, name: str, half: Callable[..., object] | None) -> None:
        whole = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            self.left -= 1
            if self.left or not self.when:
                return whole(*arguments, **options)
            if self.when == "after":
                with suppress(OSError):
                    whole(*arguments, **options)
            elif self.when == "torn" and half is not None:
                half(*arguments)
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        setattr(module, name, counted)


def write_images(root: Path) -> None:
    """Write images that are decoded one by one, and small ones that are kept in memory."""
    for name, size in (("images", (40, 70)), ("small", (32, 32))):
        folder_of_images(root / name, train=10, test=6)
        for file in (root / name).rglob("*.png"):
            Image.open(file).resize(size).save(file)


def recipe(
    root: Path, methods: Mapping[str, Any], *, images: str = "images", **changes: Any
) -> Recipe:
    """A recipe on image files that saves its state after every step."""
    data = {"source": "folder", "root": str(root / images), "size": 32}
    data |= {"augment": "resized_crop", "seed": 0}
    training = {"epochs": 2, "batch": 8, "lr": 0.01, "schedule": "constant"}
    content = {
        "name": "killed",
        "trust": True,
        "data": data,
        "student": {"name": CNN},
        "training": training | {"checkpoint_minutes": 0.0},
        "methods": dict(methods),
    }
    return Recipe.load(Recipe.load(content), changes)


def commands(root: Path) -> dict[str, Callable[[Path], object]]:
    """Command → what it does in a directory, from the start or where it stopped."""
    taught = {"teacher.weights": str(root / "teacher")}
    measured = {"lshfm": {"hashes": 16}, "kd": {}}

    def run(out: Path, methods: Mapping[str, Any], **changes: Any) -> object:
        made = recipe(root, methods, **changes)
        return train(made, out=out / "run", resume=Run(out / "run").begun, device="cpu")

    def stored(out: Path) -> dict[str, Any]:
        return {**taught, "bank.path": str(out / "bank"), "bank.views": 2, "bank.codes": True}

    return {
        "train": lambda out: run(out, {}, **{"data.decoded": str(out / "decoded")}),
        "distill": lambda out: run(out, measured, **stored(out)),
        "compare": lambda out: compare(
            recipe(root, {"kd": {}}, images="small", **taught),
            seeds=[0],
            out=out / "all",
            device="cpu",
        ),
        "export": lambda out: export(
            root / "teacher", to=("safetensors", "hub"), out=out / "export", images=1, trust=True
        ),
        "bank build": lambda out: bank_build.fill(recipe(root, measured, **stored(out))),
    }


def forked(act: Act, log: Path) -> int:
    """Do something in a process of its own, and return its status: negative after a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 0
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    try:
        act()
    except UnderstudyError as error:
        os.write(2, str(error).encode())
        status = REFUSED
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        status = RAW
    finally:
        os._exit(status)


def content(out: Path) -> dict[str, str]:
    """Digest of every file that must not depend on interruptions, by its name."""
    digests = {}
    for file in sorted(out.rglob("*")):
        if file.suffix in (".safetensors", ".bin", ".npy"):
            digests[str(file.relative_to(out))] = hashlib.sha256(file.read_bytes()).hexdigest()
        elif file.name in ("outcomes.json", "diagnostics.json"):
            digests[str(file.relative_to(out))] = file.read_text()
    for file in out.rglob("comparison.json"):
        arms = json.loads(file.read_text())["arms"]
        digests["arms"] = str([{k: v for k, v in arm.items() if k != "cost"} for arm in arms])
    return digests


def points(count: int, number: int, what: str) -> list[tuple[int, str]]:
    """So many writes of a run, evenly spaced, each with what happens there; fewer full disks."""
    whens = {"kill": ("torn", "before", "after"), "full": ("before", "torn")}[what]
    number = number if what == "kill" else number // 3
    chosen = sorted({1 + i * (count - 1) // max(1, number - 1) for i in range(number)})
    return [(at, f"{whens[i % len(whens)]} {what}") for i, at in enumerate(chosen)]


def attempt(
    name: str, act: Callable[[Path], object], out: Path, at: int, what: str
) -> dict[str, Any]:
    """Interrupt a command at a write, do it again, and say what came of both."""
    log = out / "log"
    out.mkdir()
    # What earlier runs noted about the images.
    for file in out.parent.glob("*/.understudy*"):
        file.unlink()

    def interrupted() -> None:
        Writes(at, what)
        act(out)

    first = forked(interrupted, log)
    said = log.read_text(errors="replace")
    second = forked(lambda: act(out), log)
    again = log.read_text(errors="replace")
    log.unlink()
    left = [str(path) for path in out.rglob("*.partial")]
    return {
        **{"command": name, "at": at, "act": what, "first": first, "said": said},
        **{"second": second, "again": again if second else "", "left": left},
        "content": content(out),
    }


def main(root: Path, number: int, name: str) -> None:
    """Interrupt a command at so many writes."""
    write_images(root)
    alone = recipe(root, {}, **{"training.epochs": 1})
    assert forked(lambda: train(alone, out=root / "teacher", device="cpu"), root / "log") == 0
    act, whole = commands(root)[name], root / "whole"
    whole.mkdir()
    for file in root.glob("*/.understudy*"):
        file.unlink()

    def counted() -> None:
        writes = Writes(0, "")
        act(whole)
        os.write(2, f"\n{writes.count}".encode())

    assert forked(counted, root / "log") == 0, (root / "log").read_text()
    count = int((root / "log").read_text().split()[-1])
    expected = content(whole)
    for what in ("kill", "full"):
        for at, each in points(count, number, what):
            result = attempt(name, act, root / f"{at} {each}", at, each)
            result["differs"] = [
                key
                for key in expected.keys() | result["content"].keys()
                if expected.get(key) != result["content"].get(key)
            ]
            del result["content"]
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
