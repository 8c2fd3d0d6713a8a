"""Completion scripts: what a shell offers at a place, and that it takes no torch to write them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from understudy import methods
from understudy.cli import completion
from understudy.cli.commands import COMMANDS

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_understudy understudy "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

EXAMPLES = [
    ("", ["distill", "compare", "completion"]),
    ("distill fashion/", ["fashion/demo", "fashion/teacher"]),
    ("distill cifar100/kd/resnet56", ["cifar100/kd/resnet56_resnet20"]),
    ("distill fashion/demo --training.sch", ["--training.schedule"]),
    ("distill fashion/demo --training.schedule ", ["step", "cosine"]),
    ("train --training.trackers wandb t", ["tensorboard"]),
    ("train --training.milestones 1 2 --see", ["--seed"]),
    ("train --training.nesterov ", ["true", "false"]),
    ("train --data.source fas", ["fashion"]),
    ("train --student.name resnet8", ["resnet8x4"]),
    ("distill --methods.kd.t", ["--methods.kd.temperature"]),
    ("compare x --methods kd ls", ["lshfm"]),
    ("distill --resume ru", ["runs"]),
    ("list ", ["methods", "recipes"]),
    ("distill m", ["mine.yaml"]),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of every shell, some files, and a program that wrote no torch."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "runs").mkdir()
    (folder / "mine.yaml").write_text("seed: 1")
    for shell in completion.SHELLS:
        (folder / shell).write_text(completion.script(shell, COMMANDS))
    return folder


def offered_by_bash(scripts: Path, words: Sequence[str]) -> list[str]:
    asked = ["bash", "-c", ASK, "bash", scripts / "bash", "understudy", *words]
    done = subprocess.run(asked, cwd=scripts, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(("words", "offered"), EXAMPLES)
def test_bash_offers(scripts: Path, words: str, offered: list[str]) -> None:
    typed = words.split(" ")
    assert set(offered) <= set(offered_by_bash(scripts, typed))
    assert all(word.startswith(typed[-1]) for word in offered_by_bash(scripts, typed))


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("words", "offered"), [EXAMPLES[n] for n in (1, 3, 4, 7, 10, 14)])
def test_fish_offers(scripts: Path, words: str, offered: list[str]) -> None:
    command = f"source {scripts}/fish; complete -C {json.dumps(f'understudy {words}')}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", command],
        cwd=scripts,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(offered) <= {line.partition("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_takes_the_script(scripts: Path) -> None:
    command = 'autoload -U compinit; compinit -D -u; eval "$(cat zsh)"; print $_comps[understudy]'
    done = subprocess.run(
        ["zsh", "-f", "-c", command], cwd=scripts, capture_output=True, text=True, check=True
    )
    assert done.stdout == "_shtab_understudy\n"
    assert not done.stderr


def test_it_loads_no_torch() -> None:
    code = "import sys, understudy.cli as c; c.main(['completion', 'zsh']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("name", methods.names())
def test_hyper_parameters_are_read_from_the_file_as_python_reads_them(name: str) -> None:
    file = Path(methods.__file__).with_name(f"{name}.py")
    assert completion._hyper_parameters(file) == list(methods.hyper_parameters(methods.find(name)))
