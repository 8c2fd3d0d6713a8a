"""What the pages promise runs: Python blocks are executed, lines of the shell are parsed.

The steps for a folder of images are executed on a folder made here, with tiny networks, files of
random weights for `pretrained` (tests download nothing), and one epoch.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.support.processes import Fresh
from understudy import Run, models
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.errors import RecipeError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

FOLDER = "## Your own folder of images\n"
"""Heading of the steps for a folder of images in README.md."""
TINY = {"resnet50": "test_resnet", "mobilenetv3_small_100": "test_efficientnet"}
"""Network named in the steps → a tiny network of the same library."""

FORWARD = """
import torch
from pathlib import Path
from PIL import Image

files = sorted(Path("my_images/test").rglob("*.jpg"))
images = torch.stack([transform(Image.open(file)) for file in files])
with torch.no_grad():
    torch.save((images, network(images), list(classes)), "logits.pt")
"""
"""Follows the last step: computes the logits of all test images."""

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of every fenced block in one of the languages."""
    return code_in(page.read_text(), *languages)


def code_in(text: str, *languages: str) -> list[str]:
    """The code of every fenced block of a text in one of the languages."""
    return [code for language, code in BLOCK.findall(text) if language in languages]


def folder_steps() -> str:
    """The steps for a folder of images in README.md."""
    _, _, rest = (ROOT / "README.md").read_text().partition(FOLDER)
    assert rest
    return rest.partition("\n## ")[0]


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
    elsewhere = code_in(folder_steps(), "python")
    for code in blocks(page, "python"):
        if code in elsewhere:
            continue
        # A block that opens with the name of a file is that file.
        if file := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / file[1]).write_text(code)
        else:
            script.append(code)
    Fresh("-c", "\n".join(script), folder=tmp_path).finish()


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


def make_folder(root: Path) -> None:
    """Ten classes of six training and two test images, none of them a square."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(60, size=(80, 64, 3), dtype=np.uint8) + 19 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")


def with_tiny_networks(words: list[str], folder: Path) -> list[str]:
    """A command with tiny networks, files for their pretrained weights, and a single epoch."""
    named = words[words.index("--student.name") + 1].removeprefix("timm:")
    tiny = TINY[named]
    weights = folder / f"{tiny}.pt"
    torch.manual_seed(0)
    torch.save(timm.create_model(tiny).state_dict(), weights)  # for 1000 classes
    assert words[words.index("--student.weights") + 1] == "pretrained"
    replaced = {"pretrained": str(weights), f"timm:{named}": f"timm:{tiny}"}
    return [*(replaced.get(word, word) for word in words), "--training.epochs", "1"]


def test_the_steps_for_a_folder_of_images_end_with_a_plain_student(tmp_path: Path) -> None:
    (layout,) = code_in(folder_steps(), "text")
    assert layout.split() == ["my_images/train/CLASS/*.jpg", "my_images/test/CLASS/*.jpg"]
    make_folder(tmp_path / "my_images")

    commands = [
        words for code in code_in(folder_steps(), "console") for words in command_lines(code)
    ]
    assert [words[0] for words in commands] == ["train", "compare"]
    for words in commands:
        Fresh("-m", "understudy", *with_tiny_networks(words, tmp_path), folder=tmp_path).finish()

    (script,) = code_in(folder_steps(), "python")
    without = "import sys; sys.modules['understudy'] = None"
    Fresh("-c", f"{without}\n{script}\n{FORWARD}", folder=tmp_path).finish()
    images, logits, classes = torch.load(tmp_path / "logits.pt")
    assert classes == [f"class{label}" for label in range(10)]
    # The state of the run holds the embedding layer that the student's file has folded in.
    run = Run.open(tmp_path / "runs" / "mine" / "lshfm" / "seed0")
    tiny, state = TINY["mobilenetv3_small_100"], str(run.path / "last")
    trained = models.find(f"timm:{tiny}", num_classes=10, weights=state).module.eval()
    torch.testing.assert_close(logits, trained(images))
    assert torch.equal(logits, run.student()(images))
    correct = logits.argmax(1) == torch.arange(10).repeat_interleave(2)
    assert "".join(str(int(x)) for x in correct) == run.outcomes["correct"]
    assert run.config.verdict
