"""Data sources, one file each: the file's name is the source's name, and that is the registry.

A source module has one function, `load(root, split, *, unreadable)`, that returns a `Source`. A
source that reads boxes from files also takes `faulty` and `difficult`, as in `recipe.Data`, and
`classes`: the class names of the training split, in order. A caller that has loaded the training
split passes its `Source.classes` with the test split; without it (None), the source parses the
training annotations again to learn them. The result is the same.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from understudy.data.source import Source, Split, Unreadable
from understudy.errors import NameNotFound


class SourceModule(Protocol):
    """Interface of every source's module; the first line of its docstring is its description."""

    __doc__: str | None

    def load(
        self,
        root: str,
        split: Split,
        *,
        unreadable: Unreadable = "skip",
    ) -> Source:
        """Load the images of one split.

        Args:
            root: Folder or file of the data set, as the module's docstring describes.
            split: Split to load.
            unreadable: Leave out files that cannot be decoded, or raise.

        Raises:
            DataError: The images cannot be used.
        """


def names() -> list[str]:
    """Return the names of all data sources."""
    return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> SourceModule:
    """Return the module of a source; `NameNotFound` with the nearest spelling if there is none."""
    if name not in names():
        raise NameNotFound(
            "data source", name, names(), "Images in a folder are the source 'folder'."
        )
    return cast(SourceModule, import_module(f"{__name__}.{name}"))
