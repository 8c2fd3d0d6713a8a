"""The shape of the code: which way imports point, how files are called, how long they are."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import understudy

ROOT = Path(understudy.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

LEVELS = (
    ("__main__",),
    ("cli",),
    ("reporting",),
    ("tuning",),
    ("reproduction",),
    ("deployment",),
    ("comparison",),
    ("checks",),
    ("experiment",),
    ("diagnostics",),
    ("training",),
    ("bank",),
    ("distillation",),
    ("methods", "tasks", "models", "data"),
    ("metrics", "layers"),
    ("config", "functional", "features", "locks", "profiling", "python_files"),
    ("files",),
    ("batch", "words"),
    ("errors",),
    ("__init__",),
)
"""Parts of the package, highest first; a part imports from below its own level only."""

LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}


def part(path: Path) -> str:
    """The part of the package a file belongs to."""
    return path.parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every part of the package that a file imports; types alone are no import."""
    tree = ast.parse((ROOT / path).read_text())
    for node in _at_run_time(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "understudy":
            names = [f"understudy.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.startswith("understudy."):
                inner = name.split(".")[1]
                yield inner if inner in LEVEL else "__init__"


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing:
            yield child
            yield from _at_run_time(child)


def test_every_file_has_a_level() -> None:
    assert {part(path) for path in FILES} == set(LEVEL)


def test_imports_point_down() -> None:
    upward = {
        f"{path} imports {name}, which is not below it"
        for path in FILES
        for name in imported(path)
        if name != part(path) and LEVEL[name] <= LEVEL[part(path)]
    }
    assert not upward


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not drawers & {name for path in FILES for name in (path.stem, *path.parts)}


def test_files_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in FILES}
    assert max(lengths.values()) <= 400, max(lengths, key=lengths.__getitem__)
    assert median(lengths.values()) <= 120


def test_functions_are_short() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1 - _documentation(node)
        for path in FILES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 40


def _documentation(node: ast.FunctionDef) -> int:
    text = ast.get_docstring(node, clean=False)
    return text.count("\n") + 1 if text else 0


def test_names_say_what_they_hold() -> None:
    riddles = {"found", "wanted", "shown", "told", "given", "here", "there"}
    names = {
        f"{path}:{node.lineno} {name}"
        for path in FILES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Name | ast.arg) and (name := _bound(node)) in riddles
    }
    assert not names


def _bound(node: ast.Name | ast.arg) -> str:
    """The name of a parameter, or of a variable where it is assigned."""
    if isinstance(node, ast.arg):
        return node.arg
    return node.id if isinstance(node.ctx, ast.Store) else ""


def test_a_recipe_needs_no_torch() -> None:
    source = (ROOT / "config" / "recipe.py").read_text()
    assert not {"torch", "timm", "torchvision"} & {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
