"""What the pages promise runs: Python blocks are executed, lines of the shell are parsed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.errors import RecipeError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of every fenced block in one of the languages."""
    return [code for language, code in BLOCK.findall(page.read_text()) if language in languages]


def command_lines(text: str) -> list[list[str]]:
    """Words of every line of the shell that calls Understudy, continued lines joined."""
    lines = re.split(r"\n|&&|[|;>]", text.replace("\\\n", " "))
    words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
    return [w[w.index("understudy") + 1 :] for w in words if "understudy" in w]


def check(words: list[str]) -> None:
    """Fail unless the command and all its flags exist and their values can be read."""
    if words and words[0] not in ("--help", "--version"):
        assert words[0] in COMMANDS, f"there is no command {words[0]!r}"
        if "--help" not in words:
            parse(COMMANDS[words[0]], words[0], words[1:])


def shell_lines() -> list[list[str]]:
    """Every line of every page that calls Understudy."""
    texts = [code for page in PAGES for code in blocks(page, "sh", "shell", "bash", "console")]
    return [words for text in texts for words in command_lines(text)]


@pytest.mark.parametrize("words", shell_lines(), ids=" ".join)
def test_a_line_of_the_shell_can_be_typed(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_the_python_blocks_of_a_page_run_one_after_another(page: Path, tmp_path: Path) -> None:
    script = []
    for code in blocks(page, "python"):
        # A block that opens with the name of a file is that file.
        if file := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / file[1]).write_text(code)
        else:
            script.append(code)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", ["understudy distil x", "understudy train --epoch 3", "understudy list all"]
)
def test_a_line_that_cannot_be_typed_is_noticed(line: str) -> None:
    (words,) = command_lines(line)
    with pytest.raises((AssertionError, RecipeError)):
        check(words)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
