"""What the pages promise runs: every block of every page, in order, in a folder of its own."""

import re
from collections import Counter

import pytest

from tests.site.conftest import Reader
from tests.site.page_blocks import PAGES, ROOT, blocks, lines
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.errors import RecipeError

NOT_RUN = Counter(
    {
        ("README.md", "installs packages"): 1,
        ("README.md", "docs/own_folder.md runs it"): 1,
        ("CONTRIBUTING.md", "installs packages"): 1,
        ("CONTRIBUTING.md", "starts tests"): 1,
        ("docs/bank.md", "needs a bucket"): 1,
        ("docs/benchmarks.md", "takes a quarter of an hour"): 1,
        ("docs/data.md", "needs a data set of the hub"): 1,
        ("docs/data.md", "needs shards"): 1,
        ("docs/deploy.md", "needs the hub"): 2,
        ("docs/recipes.md", "trains a whole table"): 2,
        ("docs/scale.md", "starts several processes"): 1,
        ("docs/scale.md", "needs a bucket"): 1,
        ("docs/start.md", "installs packages"): 1,
        ("docs/tune.md", "installs packages"): 1,
        ("docs/tune.md", "searches for an hour"): 1,
    }
)
"""(page, reason) → number of blocks that are not run: whoever adds one says so here too."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not block.reason for block in blocks(page))]
)
def test_the_blocks_of_a_page_run_one_after_another(page: str, reader: Reader) -> None:
    reader(page)


def test_blocks_that_are_not_run_are_known() -> None:
    marked = Counter((b.page, b.reason) for page in PAGES for b in blocks(page) if b.reason)
    assert marked == NOT_RUN


def test_a_block_that_another_page_runs_stands_there() -> None:
    for block in (b for page in PAGES for b in blocks(page) if b.reason.endswith(" runs it")):
        run = [
            line for b in blocks(block.reason.split()[0]) if not b.reason for line in lines(b.code)
        ]
        assert [line for line in lines(block.code) if line not in run] == []


def calls(page: str) -> list[list[str]]:
    """Words after `understudy` of every line of the shell, also of blocks that are not run."""
    shell = [line for b in blocks(page) if b.kind == "shell" for line in lines(b.code)]
    return [words[words.index("understudy") + 1 :] for words in shell if "understudy" in words]


def check(words: list[str]) -> None:
    """Fail unless the command and all its flags exist and their values can be read."""
    if words and words[0] not in ("--help", "--version", "--resume"):
        assert words[0] in COMMANDS, f"there is no command {words[0]!r}"
        if "--help" not in words:
            parse(COMMANDS[words[0]], words[0], words[1:])


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_the_shell_can_be_typed(page: str) -> None:
    for words in calls(page):
        check(words)


@pytest.mark.parametrize(
    "line", ["understudy distil x", "understudy train --epoch 3", "understudy list all"]
)
def test_a_line_that_cannot_be_typed_is_noticed(line: str) -> None:
    (words,) = lines(line)
    with pytest.raises((AssertionError, RecipeError)):
        check(words[1:])


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            made = target.startswith("methods/") or target in ("command_line.md",)
            assert made or ((ROOT / page).parent / target).exists(), f"{page}: {target}"
