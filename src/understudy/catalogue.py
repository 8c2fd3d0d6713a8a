"""What there is, as tables and pages for the terminal, out of docstrings and files."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from understudy import data, methods, models, recipe, tasks
from understudy.errors import NameNotFound

Row = tuple[str, ...]


def table(kind: str) -> Table:
    """Everything of one kind: `methods`, `models`, `data`, `tasks` or `recipes`."""
    headings, rows = _KINDS[kind]
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        result.add_column(heading, overflow="fold")
    for row in rows():
        result.add_row(*row)
    return result


def show(name: str) -> RenderableType:
    """The page of one thing, of whatever kind it is.

    Raises:
        NameNotFound: Nothing has that name; offers the nearest spelling.
    """
    if name in methods.names():
        return _method_page(name)
    if name in data.names():
        return _docstring(import_module(f"understudy.data.{name}"))
    if name in recipe.shipped():
        return Syntax(recipe.shipped()[name].read_text(), "yaml", background_color="default")
    if name in tasks.names():
        return _docstring(import_module(f"understudy.tasks.{name}"))
    if name in models.names() or ":" in name:
        return _model_page(name)
    known = [*methods.names(), *models.names(), *data.names(), *tasks.names(), *recipe.shipped()]
    raise NameNotFound("method, model, data source, task or recipe", name, known)


def _method_page(name: str) -> Group:
    found = methods.find(name)
    module = import_module(found.__module__)
    keys = Table("key", "default", box=None, pad_edge=False, header_style="bold")
    keys.add_row("weight", str(found.published_weight))
    for key, default in methods.hyper_parameters(found).items():
        keys.add_row(key, str(default))
    return Group(_docstring(module), "", _docstring(found), "", keys)


def _model_page(name: str) -> Group:
    network = models.find(name, num_classes=None)
    taps = Table("feature", "read at", "shape", box=None, pad_edge=False, header_style="bold")
    for feature, path, shape in network.table():
        taps.add_row(feature, path, " × ".join(map(str, shape)))
    count = sum(p.numel() for p in network.module.parameters())
    return Group(f"{name}: {count:,} parameters, {network.num_classes} classes", "", taps)


def _docstring(thing: object) -> Text:
    return Text(inspect.getdoc(thing) or "")


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _methods() -> Iterator[Row]:
    for name in methods.names():
        found = methods.find(name)
        module = import_module(found.__module__)
        yield name, f"{found.published_weight:g}", _first_line(module)


def _modules(package: Any) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for name in package.names():
            yield name, _first_line(import_module(f"{package.__name__}.{name}"))

    return rows


def _models() -> Iterator[Row]:
    for name in models.names():
        network = models.find(name, num_classes=100)
        count = sum(p.numel() for p in network.module.parameters())
        yield name, f"{count:,}", str(network.shapes["penultimate"][0])
    yield "timm:NAME", "", "any model of timm"
    yield "torchvision:NAME", "", "any classifier of torchvision"
    yield "hf:PATH", "", "an image model saved by transformers"
    yield "path/to/file.py:factory", "", "your own"


def _recipes() -> Iterator[Row]:
    for name in recipe.shipped():
        found = recipe.load(name)
        source, pair = found.data.source, f"{found.teacher.name or '–'} → {found.student.name}"
        yield name, source, pair, " + ".join(found.methods) or "none"


_KINDS: dict[str, tuple[Row, Callable[[], Iterator[Row]]]] = {
    "methods": (("method", "weight", "what it is"), _methods),
    "models": (("model", "parameters at 100 classes", "penultimate dimension"), _models),
    "data": (("source", "what it is"), _modules(data)),
    "tasks": (("task", "what it is"), _modules(tasks)),
    "recipes": (("recipe", "data", "teacher → student", "methods"), _recipes),
}
