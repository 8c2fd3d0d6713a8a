"""The fenced blocks of a page that can be run, and why some are not.

A block runs unless the line before it says why not: `<!-- not run: REASON -->`. A block whose first
line names a file (`# recipe.yaml`, `# angle.py`) is that file.
"""

import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in [
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]
)
"""All pages, as paths in the repository."""
WITH_INCLUDES = runpy.run_path(str(ROOT / "docs/generate/page_text.py"))["with_includes"]
SHELL = ("bash", "console", "sh", "shell")
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"# ([\w/]+\.(?:py|yaml|csv))\n")


@final
@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    kind: Literal["python", "shell", "file"]
    code: str
    reason: str = ""
    """Why it is not run; empty: it is."""
    file: str = ""
    """Name of the file that it is."""


def blocks(page: str) -> list[Block]:
    """All blocks of a page that are a program, lines of the shell or a file."""
    result = []
    text = WITH_INCLUDES((ROOT / page).read_text(encoding="utf-8"))
    for fence in FENCE.finditer(text):
        language, code, reason = fence["language"], fence["code"], fence["reason"] or ""
        if named := FILE.match(code):
            result.append(Block(page, "file", code, reason, named[1]))
        elif language == "python":
            result.append(Block(page, "python", code, reason))
        elif language in SHELL:
            result.append(Block(page, "shell", code, reason))
    return result


def lines(code: str) -> list[list[str]]:
    """Words of every line of the shell, continued lines joined, comments dropped."""
    joined = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in joined]
    return [line for line in words if line]
