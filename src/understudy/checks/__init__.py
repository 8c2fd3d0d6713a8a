"""Checks of a recipe before training, one file each: the file's name is the registry.

A check is a module with

    SHORT: bool       True if the short form, before every `distill` and `compare`, has it
    OF_METHODS: bool  True if it depends on the methods: `compare` then asks it of every arm
    SECONDS: float    what it takes at most, by which checks are ordered: the shortest come first
    def check(examined: Examined) -> Iterator[Finding]

What several checks look at, `Examined` computes once.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from understudy.checks.examined import Examined
from understudy.checks.finding import Finding

_FRAME = ("examine", "examined", "finding", "messages", "plan", "trial")
"""Modules of this package that are no checks."""


class Check(Protocol):
    """A module of this package that is a check."""

    SHORT: bool
    OF_METHODS: bool
    SECONDS: float
    check: Callable[[Examined], Iterator[Finding]]


def names() -> list[str]:
    """List the names of all checks."""
    modules = (m.name for m in iter_modules(__path__))
    return sorted(name for name in modules if name not in _FRAME and not name.startswith("_"))


def find(name: str) -> Check:
    """Return a check by its name."""
    return cast(Check, import_module(f"{__name__}.{name}"))
