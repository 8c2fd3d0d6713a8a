"""The environment in which the templates of pages are rendered."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined


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
    return templates


def parts(cell: str) -> list[str]:
    """Return the parts of a cell between which a narrow table may break the line."""
    return re.split(r" (?=[±\[(])", cell)


def unbroken(sentence: str) -> str:
    """Return a sentence in which no line can end between a number and its percent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")
