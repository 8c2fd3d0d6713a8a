"""The card of each method, from its file: equation, source, requirements, recipes, limits."""

import inspect
import re
from functools import cache
from importlib import import_module

import result_tables
from page_text import cell

from understudy import methods, models
from understudy.cli.listing import hyper_parameter_rows
from understudy.config import tables
from understudy.errors import UnderstudyError
from understudy.methods import Method

PAIR = ("resnet8x4", "resnet32x4")
"""Student and teacher on which a card says what its method reads."""
REQUIREMENTS = {
    "requires_softmax": "classes that exclude each other (a softmax): refused for several classes "
    "per image, and for detectors with a sigmoid per class",
    "requires_hard_labels": "exactly one class per image: refused with mixup and cutmix",
    "requires_image_index": "a number for each training image: refused for detection",
}
"""Attribute of a method → what it requires, in words."""


def names() -> list[str]:
    """List all methods."""
    return methods.names()


def pages() -> dict[str, str]:
    """Return name → Markdown of the card of every method, and of the page that lists them."""
    cards = {f"methods/{name}.md": _card(name) for name in names()}
    lines = [
        f"| [{name}]({name}.md) | {_in_short(name)} | {methods.find(name).published_weight:g} "
        f"| {_source(name)} |"
        for name in names()
    ]
    head = [
        "# Methods",
        "",
        "A method is one way in which a student imitates its teacher: one published loss. A card "
        "says what it does and reads, its equation, hyper-parameters and published recipes, and "
        "what it changed here; it is made from the file of the method. "
        "[Which method](../choose.md) compares what was measured; "
        "[Contributing](../contributing.md) says how to add one.",
        "",
        "| method | what it does | published weight | source |",
        "|---|---|--:|---|",
    ]
    return {"methods/index.md": "\n".join([*head, *lines]) + "\n", **cards}


def _card(name: str) -> str:
    method = methods.find(name)
    title, _, body = (inspect.getdoc(import_module(method.__module__)) or "").partition("\n")
    about = inspect.cleandoc(method.__doc__ or "").partition("\nArgs:")[0]
    parts = [f"# {name}", _spaced(about.strip()), _requirements(method)]
    parts += ["## Equation and source", title, _spaced(body.strip("\n"))]
    parts += ["## Hyper-parameters", _hyper_parameters(method)]
    parts += [_command(name, method), "## Published recipes", _recipes(name)]
    parts += ["## Measured here", result_tables.of_method(name)]
    return "\n\n".join(parts) + "\n"


def _in_short(name: str) -> str:
    return (inspect.getdoc(methods.find(name)) or "").splitlines()[0].rstrip(".")


def _source(name: str) -> str:
    lines = (inspect.getdoc(import_module(methods.find(name).__module__)) or "").splitlines()
    return lines[0]


def _spaced(text: str) -> str:
    """Return text of a docstring with an empty line before every list, as Markdown wants it."""
    return re.sub(r"(?m)^(?!- |  )(\S.*)\n(?=- )", r"\1\n\n", text)


def _requirements(method: type[Method]) -> str:
    lines = [f"- Needs {words}." for key, words in REQUIREMENTS.items() if getattr(method, key)]
    if method.unbounded_loss is True:
        lines.append("- The loss has no finite minimum: gradients of detectors are clipped.")
    return "\n".join([f"- Reads of the teacher: {_reads(method)}", *lines])


def _reads(method: type[Method]) -> str:
    """Return the teacher's features that a method reads, or why it is refused for this pair."""
    student, teacher = (_network(name) for name in PAIR)
    try:
        read = method(student.shapes, teacher.shapes).reads
    except UnderstudyError as error:
        return f"{PAIR[1]} → {PAIR[0]} is refused: {error}"
    features = ", ".join(f"`{x}`" for x in read) or "nothing but its maps"
    return f"{features} ({PAIR[1]} → {PAIR[0]})."


@cache
def _network(name: str) -> models.Network:
    return models.find(name, num_classes=100)


def _hyper_parameters(method: type[Method]) -> str:
    rows = [tuple(map(cell, row)) for row in hyper_parameter_rows(method)]
    lines = [f"| `{key}` | {default} | {text} |" for key, default, text in rows]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *lines])


def _command(name: str, method: type[Method]) -> str:
    return (
        f"```console\nunderstudy show {name}\n```\n\n"
        f"prints the same. In a recipe: `methods: {{{name}: {{weight: "
        f"{method.published_weight:g}}}}}`; as a flag: `--method {name} --methods.{name}.weight "
        f"{method.published_weight:g}`."
    )


def _recipes(name: str) -> str:
    """Return the shipped tables that train with a method, by the paper they are of."""
    sources: dict[str, list[str]] = {}
    for table, (source, used) in _tables().items():
        if name in used:
            sources.setdefault(source, []).append(f"`{table}`")
    lines = [
        f"- {', '.join(names)}{': ' if source else ''}{source}" for source, names in sources.items()
    ]
    return "\n".join(lines) or "None is shipped."


@cache
def _tables() -> dict[str, tuple[str, frozenset[str]]]:
    """Return table → its paper, and the methods of its first row."""
    rows = list(tables.shipped())
    result = {}
    for table in tables.tables():
        row = next((x for x in rows if x == table or x.startswith(f"{table}/")), None)
        if row is not None:
            about, used = tables.about(row), tables.read(row).get("methods", {})
            source = ", ".join(filter(None, (about.paper, about.table)))
            result[table] = (source, frozenset(x.get("method", key) for key, x in used.items()))
    return result
