"""Where images come from, one file per source: the file's name is the source's name.

A source module has one function, `load(root, split, *, unreadable)`, that gives a `Source`; one
with boxes also takes `faulty` and `difficult`, as in `recipe.Data`.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Literal, Protocol, cast

from understudy.data.decoded import DecodedSource as DecodedSource
from understudy.data.loader import Loader as Loader
from understudy.data.objects import ObjectViews as ObjectViews
from understudy.data.source import FileSource as FileSource
from understudy.data.source import MemorySource as MemorySource
from understudy.data.source import Source as Source
from understudy.data.views import CLEAN as CLEAN
from understudy.data.views import FileViews as FileViews
from understudy.data.views import MemoryViews as MemoryViews
from understudy.data.views import Views as Views
from understudy.errors import NameNotFound

_MACHINERY = {"classes", "mixing", "decoded", "loader", "objects", "source", "subset", "views"}


class SourceModule(Protocol):
    """What every source's file offers; the first line of its docstring describes it."""

    __doc__: str | None

    def load(
        self,
        root: str,
        split: Literal["train", "test"],
        *,
        unreadable: Literal["skip", "fail"] = "skip",
    ) -> Source:
        """The images of one split; `DataError` if they cannot be used."""


def names() -> list[str]:
    """Names of all data sources."""
    found = (m.name for m in iter_modules(__path__) if not m.name.startswith("_"))
    return sorted(set(found) - _MACHINERY)


def find(name: str) -> SourceModule:
    """The module behind a source's name; `NameNotFound` with the nearest spelling."""
    if name not in names():
        raise NameNotFound(
            "data source", name, names(), "Images in a folder are the source 'folder'."
        )
    return cast(SourceModule, import_module(f"{__name__}.{name}"))
