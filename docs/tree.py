"""Print every module with the first line of its docstring; `--write` updates design.md.

The page holds them between marks; tests/test_design.py checks that it is up to date.
"""

import ast
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "design.md"
ROOT = HERE.parent / "src" / "understudy"
BLOCK = re.compile(r"(?<=<!-- tree -->\n).*?(?=<!-- end -->)", re.DOTALL)
INDENT = 4


def tree() -> str:
    """Return a code block with a line for every package and module."""
    rows = [("understudy/", _summary(ROOT / "__init__.py")), *_rows(ROOT, 1)]
    width = max(len(name) for name, _ in rows) + 2
    return (
        "```\n" + "".join(f"{name:{width}}{text}".rstrip() + "\n" for name, text in rows) + "```\n"
    )


def updated(page: str) -> str:
    """Return the page with the present tree between its marks."""
    return BLOCK.sub(lambda _: tree(), page)


def _rows(folder: Path, depth: int) -> list[tuple[str, str]]:
    """Return name and summary of all modules in a folder, its packages after them."""
    rows = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        name = " " * INDENT * depth + path.name
        if path.suffix == ".py" and path.stem != "__init__":
            rows.append((name, _summary(path)))
        elif (path / "__init__.py").is_file():
            rows += [(f"{name}/", _summary(path / "__init__.py")), *_rows(path, depth + 1)]
    return rows


def _summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(tree(), end="")
