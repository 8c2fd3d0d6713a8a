"""Every flag that a message advises exists, in the command in whose place the message appears."""

import ast
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import FILES, ROOT
from understudy import files
from understudy.cli.commands import COMMANDS
from understudy.config.groups import OneTeacher
from understudy.config.schema import leaves

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9_-]*(?:\.[a-z_*{}]+)*)")
COMMAND = re.compile(r"understudy ([a-z]+)((?: [^`']*)?)")

OTHERS = {"version", "shm-size", "local-dir", "repo-type"}
"""Flags without a command, and of other programs."""

PLACES: dict[str, tuple[str, ...]] = {
    "files.py": ("train", "distill", "compare", "demo", "reproduce"),
    "experiment/train.py": ("distill",),
    "experiment/taken.py": ("train", "distill", "compare", "demo"),
    "experiment/recorder.py": ("train", "distill", "compare", "demo"),
    "experiment/runner.py": ("train", "distill", "compare", "demo"),
    "comparison/compare.py": ("compare",),
    "comparison/result.py": ("compare",),
    "comparison/demo.py": ("demo",),
    "comparison/arms.py": ("compare",),
    "comparison/jobs/count.py": ("compare", "demo"),
    "comparison/jobs/workers.py": ("compare", "demo"),
    "experiment/bank_build.py": ("bank",),
    "reproduction/reproduce.py": ("reproduce",),
    "reproduction/rows.py": ("reproduce",),
    "reproduction/result.py": ("reproduce",),
}
"""Module → commands that end in its messages; of others, one command with the flag is enough."""


def flags(command: str) -> set[str]:
    """All flags of a command, recipe keys included."""
    parser = COMMANDS[command].parser(f"understudy {command}")
    return {flag.removeprefix("--") for flag in parser._option_string_actions}


OF_A_TEACHER = {path for path, _, _ in leaves(OneTeacher)}
"""Keys of `teachers.NAME`, whatever its name."""

FLAGS = {command: flags(command) for command in COMMANDS}


def texts(path: Path) -> Iterator[str]:
    """Every text of a file but its docstrings; what an f-string puts in is `{}`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inner |= set(node.values)
            parts = (x.value if isinstance(x, ast.Constant) else "{}" for x in node.values)
            yield "".join(str(part) for part in parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield node.value


def exists(flag: str, command: str) -> bool:
    key = flag.removeprefix("teachers.{}.")
    if key.startswith("methods.") or (key != flag and key in OF_A_TEACHER):
        return "training.epochs" in FLAGS[command]
    pattern = re.escape(flag).replace(r"\{\}", r"[\w.]+") + "$"
    return any(re.match(pattern, known) for known in FLAGS[command])


@pytest.mark.parametrize("path", sorted(map(str, FILES)))
def test_every_flag_that_is_advised_exists(path: str) -> None:
    places = PLACES.get(path)
    for text in texts(Path(path)):
        named = COMMAND.findall(text)
        for command, words in named:
            if command in COMMANDS:
                absent = [flag for flag in FLAG.findall(words) if not exists(flag, command)]
                assert not absent, f"`understudy {command}` has no {absent}: {text}"
        for flag in set(FLAG.findall(COMMAND.sub("", text))) - OTHERS:
            having = [command for command in COMMANDS if exists(flag, command)]
            assert having, f"no command has --{flag}: {text}"
            if places:
                assert set(places) <= set(having), f"{set(places) - set(having)}: {text}"


def test_a_full_disk_says_how_it_goes_on() -> None:
    error = files.write_error(OSError(errno.ENOSPC, "full"), Path("runs/x"), 10**6)
    assert str(error).endswith("Free some space and continue with --resume.")


def test_advice_on_one_run_becomes_that_on_all() -> None:
    message = f"Stopped; {files.to_continue(Path('runs/my own/kd/seed0'))}."
    assert files.continued_by(message, Path("runs/my own")) == (
        "Stopped; continue with `understudy --resume 'runs/my own'`."
    )
