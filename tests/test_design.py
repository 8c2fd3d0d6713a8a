"""What the design page says of the layout is what the files say."""

import re
import runpy
from pathlib import Path

from tests.test_imports import FILES, LEVELS, ROOT

PAGE = Path(__file__).parents[1] / "docs" / "design.md"
TREE = runpy.run_path(str(PAGE.with_name("tree.py")))


def section() -> str:
    """The third section of the page."""
    return PAGE.read_text().partition("\n## 3.")[2].partition("\n## 4.")[0]


def test_the_tree_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert TREE["updated"](page) == page, "run `make docs`"


def test_every_module_is_there_once_with_its_line() -> None:
    lines = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in TREE["tree"]().splitlines()]
    names = sorted(line[0] for line in lines if line[0] != "```")
    modules = [path.name for path in FILES if path.name != "__init__.py"]
    packages = [f"{(ROOT / path).parent.name}/" for path in FILES if path.name == "__init__.py"]
    assert names == sorted([*modules, *packages])
    assert all(line == ["```"] or len(line) == 2 for line in lines), "a docstring is missing"


def test_the_levels_are_those_of_the_imports() -> None:
    (block,) = (text for text in re.findall(r"```\n(.*?)```", section(), re.DOTALL) if "→" in text)
    levels = [tuple(level.split(" | ")) for level in " ".join(block.split()).split(" → ")]
    assert tuple(levels) == LEVELS
