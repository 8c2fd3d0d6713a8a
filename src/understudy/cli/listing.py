"""Output of `understudy list` and `understudy show`, made from docstrings and files.

Lists import torch only where they must: importing it takes longer than the list.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import yaml
from docstring_parser import parse_from_object
from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from understudy.cli import method_needs
from understudy.config import tables
from understudy.config.limits import NonNegative
from understudy.config.recipe import Network, Recipe
from understudy.config.schema import hints_of, limits
from understudy.config.tables import About
from understudy.errors import NameNotFound

Row = tuple[str, ...]

_CAPTIONS = {
    "methods": "needs: what it reads of the teacher, class scores (logits), the vector before its "
    "classifier, or maps of its stages. `understudy show NAME` explains a method, `understudy list "
    "papers` names the sources.",
    "models": "parameters: with 100 classes. feature: length of the vector before the classifier. "
    "`understudy show NAME` lists all features of a network.",
}
"""Kind of list → what stands below it."""


def table(kind: str) -> Table:
    """Return the list of one kind.

    Args:
        kind: `methods`, `papers` (of the methods), `models`, `data`, `tasks` or `recipes`.
    """
    headings, rows = _KINDS[kind]
    result = _table(headings, rows())
    if kind in _CAPTIONS:
        result.caption, result.caption_justify = _CAPTIONS[kind], "left"
    return result


def show(name: str) -> RenderableType:
    """Return the page of a method, model, data source, task or recipe.

    Raises:
        NameNotFound: No such name; offers the nearest spelling.
        NetworkError: A network of that name cannot be built.
    """
    if name in tables.shipped() or name in tables.tables():
        return Syntax(_recipe_page(name), "yaml", background_color="default", word_wrap=True)
    from understudy import data, methods, models, tasks
    from understudy.models import detection

    if name in methods.names():
        return _method_page(methods.find(name))
    for package in (data.sources, tasks):
        if name in package.names():
            return _prose(import_module(f"{package.__name__}.{name}"))
    if name in detection.names():
        return _detector_page(name)
    if name in models.names() or ":" in name:
        return _model_page(name)
    known = [*methods.names(), *models.names(), *detection.families.NAMES]
    known += [*data.names(), *tasks.names(), *tables.tables()]
    raise NameNotFound("method, model, data source, task or recipe", name, known)


def hyper_parameter_rows(method: Any) -> Iterator[Row]:
    """Yield key, default and meaning of the weight and the hyper-parameters of a method."""
    from understudy.methods import hyper_parameters

    hints = hints_of(method.__init__)
    help_of = {p.arg_name: p.description or "" for p in parse_from_object(method).params}
    weight = f"published weight of this loss ({limits(NonNegative)})"
    keys = [("weight", f"{method.published_weight:g}", weight)]
    for key, default in hyper_parameters(method).items():
        limit = limits(hints.get(key))
        text = help_of.get(key, "")
        keys.append((key, str(default), f"{text.rstrip('.')} ({limit})" if limit else text))
    keys += [
        (task, ", ".join(f"{key}: {value}" for key, value in other.items()), "for this task")
        for task, other in method.published.items()
    ]
    yield from ((key, default, " ".join(text.split())) for key, default, text in keys)


def _method_page(method: Any) -> Group:
    """Return what a method does and needs, then its keys, then equation and source."""
    about = inspect.cleandoc(method.__doc__ or "").partition("\nArgs:")[0]
    refused = method_needs.not_for(method)
    needs = [f"Reads of the teacher: {method_needs.in_full(method_needs.reads(method))}."]
    needs += [f"Not for {refused}."] * bool(refused)
    return Group(
        _flowing(about),
        "",
        _flowing(" ".join(needs)),
        "",
        _table(
            ("key", "default", "meaning, in symbols of the equation below"),
            hyper_parameter_rows(method),
        ),
        "",
        _prose(import_module(method.__module__)),
    )


def _recipe_page(name: str) -> str:
    """Return a file unchanged; for a row of a table, an equivalent recipe with its source."""
    if name in tables.tables():
        return tables.tables()[name].read_text(encoding="utf-8")
    about = tables.about(name)
    lines = [f"{about.paper}: {about.table}.", "", *_figures(name, about), f"Cost: {about.cost}."]
    lines += [f"Note: {about.note}."] if about.note else []
    head = [part for line in lines for part in textwrap.wrap(line, 98) or [""]]
    for line in _commands(name, about):
        # Broken by the terminal, the rest of a line would no longer be a comment.
        head += ["", *" \\\n    ".join(textwrap.wrap(line, 90)).split("\n")]
    keys = yaml.safe_dump(
        tables.read(name), default_flow_style=None, sort_keys=False, allow_unicode=True, width=80
    )
    return "\n".join(f"# {line}".rstrip() for line in head) + f"\n{keys}"


def _figures(name: str, about: About) -> Iterator[str]:
    figures = {"": about.published, "student alone": about.student, "teacher": about.teacher}
    known = [f"{who} {value} %".strip() for who, value in figures.items() if value]
    if known:
        # Both import torch, which the lists above can do without.
        from understudy import tasks
        from understudy.reporting.columns import name as metric_name

        headline = tasks.find(Recipe.load(name).task).headline
        yield f"Published {metric_name(headline)}: {', '.join(known)}."


def _commands(name: str, about: About) -> Iterator[str]:
    """Yield the commands that run a recipe; those of its first stage, if any, come first."""
    if about.first:
        row = f"{about.first}/{name.rpartition('/')[2]}"
        first = row if row in tables.shipped() else about.first
        yield from (f"{line} --out runs/first" for line in _commands(first, tables.about(first)))
    recipe = Recipe.load(name)
    words = ["understudy", "distill" if recipe.each_method else "train", name, "--data.root DIR"]
    words += ["--teacher.weights RUN_OR_FILE"] * bool(recipe.methods and not recipe.teacher.weights)
    yield " ".join([*words, *["--student.weights runs/first/last"] * bool(about.first)])


def _model_page(name: str) -> Group:
    from understudy import models

    network = models.find(name, num_classes=None)
    count = sum(p.numel() for p in network.module.parameters())
    rows = (
        (feature, path, " × ".join(map(str, shape)))
        for feature, path, shape in network.feature_table()
    )
    return Group(
        f"{name}: {count:,} parameters, {network.num_classes or 'no'} classes",
        "",
        _table(("feature", "read at", "shape"), rows),
        *_about_tokens(network),
    )


def _about_tokens(network: Any) -> Iterator[Text]:
    """Yield where a transformer's patches are, and how other blocks are read."""
    if "patches" in network.shapes and network.shapes.token_layout:
        block = network.taps["stage4" if "stage4" in network.taps else "stage1"]
        yield Text()
        yield _flowing(
            f"Tokens: {network.shapes.token_layout}; every feature of tokens serves as a "
            f"map. Any block can be a feature, by taps: {{mine: {block}}} for all tokens, "
            f"{block}:patches for a map, {block}:normalised or {block}:normalised patches behind "
            "the last norm."
        )


def _detector_page(name: str) -> Group:
    from understudy.models import detection

    detector = detection.find(name)
    count = sum(p.numel() for p in detector.module.parameters())
    rows = ((feature, " × ".join(map(str, x))) for feature, x in detector.shapes.items())
    shape = f"shape, for images of {detection.NOMINAL_SIZE} × {detection.NOMINAL_SIZE}"
    return Group(
        _prose(type(detector)),
        "",
        f"{name}: {count:,} parameters, {detector.num_classes} classes",
        "",
        _table(("feature", shape), rows),
    )


def _table(headings: Row, rows: Iterator[Row]) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        # Names are copied from here, so they must not be broken.
        result.add_column(heading, overflow="fold", no_wrap=heading == headings[0])
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def _prose(thing: object) -> Text:
    return _flowing(inspect.getdoc(thing) or "")


def _flowing(text: str) -> Text:
    """Return text with each paragraph and list item on one line, to be wrapped by the terminal."""
    return Text(re.sub(r"(?m)(?<=\S)(?<!\n)\n(?: {2}(?=\S))?(?![\s|-])", " ", text.strip()))


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _methods() -> Iterator[Row]:
    from understudy import methods

    for name in methods.names():
        method = methods.find(name)
        yield (
            name,
            method_needs.reads(method),
            method_needs.not_for(method),
            _first_line(method).rstrip("."),
        )


def _papers() -> Iterator[Row]:
    from understudy import methods

    for name in methods.names():
        method = methods.find(name)
        yield name, f"{method.published_weight:g}", _first_line(import_module(method.__module__))


def _modules(kind: str) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        package = import_module(f"understudy.{kind}")
        for name in package.names():
            yield name, _first_line(import_module(f"{package.__name__}.{name}"))

    return rows


def _models() -> Iterator[Row]:
    from understudy import models
    from understudy.models import detection

    for name in models.names():
        network = models.find(name, num_classes=100)
        count = sum(p.numel() for p in network.module.parameters())
        about = "of the CIFAR papers, 32 pixels"
        yield name, about, f"{count:,}", str(network.shapes["penultimate"][0])
    others = {
        "timm:NAME": "any model of timm",
        "hf-hub:OWNER/NAME": "a model of timm on the hub of Hugging Face",
        "torchvision:NAME": "any classifier of torchvision",
        "hf:FOLDER": "an image model saved by transformers",
        "path/to/file.py:factory": "your own: a function that builds it",
        **dict.fromkeys(detection.families.NAMES, "a detector over any backbone"),
    }
    for name in detection.names():
        if name.startswith("torchvision:"):
            others[name] = "a detector"
    yield from ((name, about, "", "") for name, about in others.items())


def _recipes() -> Iterator[Row]:
    for name in tables.shipped():
        recipe, about = Recipe.load(name), tables.about(name)
        # Without spaces, most rows fit on one line, which grep needs.
        pair = f"{_short(recipe.teacher) or '–'}→{_short(recipe.student)}"
        # Without a method, the published number is that of the student alone.
        published = about.published or ("" if recipe.methods else about.student)
        yield (
            name,
            recipe.data.source,
            pair,
            "+".join(recipe.methods) or "none",
            _cited(about.paper),
            published.partition(" ")[0],
        )


def _short(network: Network) -> str:
    """Return a network's name, or its backbone's, without library, patch size and weights."""
    name = str(network.options.get("backbone", network.name))
    return re.sub(r"_patch.*|\..*", "", name.rpartition(":")[2])


def _cited(paper: str) -> str:
    """Return first author and year."""
    years = re.findall(r"\b(?:19|20)\d\d\b(?!\.\d)", paper)
    return " ".join([re.split(r",| et al\.", paper)[0], *years[:1]])


_KINDS: dict[str, tuple[Row, Callable[[], Iterator[Row]]]] = {
    "methods": (("method", "needs", "not for", "what it does"), _methods),
    "papers": (("method", "published weight", "paper"), _papers),
    "models": (
        ("model", "what it is", "parameters", "feature"),
        _models,
    ),
    "data": (("source", "what it reads"), _modules("data.sources")),
    "tasks": (("task", "what it trains for"), _modules("tasks")),
    "recipes": (
        ("recipe", "data", "teacher→student", "methods", "paper", "published"),
        _recipes,
    ),
}
