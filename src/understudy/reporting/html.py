"""The environment in which the templates of pages are rendered."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape


def environment() -> Environment:
    """Return an environment that escapes every value, and refuses names without one."""
    templates = Environment(
        loader=PackageLoader("understudy.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["unbroken"] = unbroken
    templates.filters["parts"] = parts
    templates.filters["with_code"] = with_code
    templates.filters["with_whole_flags"] = with_whole_flags
    return templates


def parts(cell: str) -> list[str]:
    """Return the parts of a cell between which a narrow table may break the line."""
    return re.split(r" (?=[±\[(])", cell)


def unbroken(sentence: str) -> str:
    """Return a sentence in which no line can end between a number and its percent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def with_code(sentence: str) -> Markup:
    """Return a sentence, unbroken, in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(unbroken(sentence)))))


def with_whole_flags(command: str) -> Markup:
    """Return a command in which no line can end within the name of a flag."""
    whole = r'\1<span class="whole">\2</span>'
    return Markup(re.sub(r"(^| )(--[\w.-]+)", whole, str(escape(command))))
