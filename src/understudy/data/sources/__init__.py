"""Data sources, one file each: the file's name is the source's name, and that is the registry.

A source module has one function, `load(root, split, *, unreadable)`, that returns a `Source`. A
source that reads boxes from files also takes `faulty` and `difficult`, as in `recipe.Data`. One
whose classes are those of the training annotations takes `classes`: the class names of the
training split, in order. A caller that has loaded the training split passes its `Source.classes`
with the test split; without it (None), the source parses the training annotations again to learn
them. The result is the same.

Splits. `train` is trained on, `validation` chooses the best epoch, and `test` is only measured.
A data set has a validation split if it has one called `val`, `valid` or `validation` beside
`test`; without `test`, that one is the test split (`_splits.choose` is this rule). A source that
can tell them apart lists all three in its module's `SPLITS`; `load` then raises `NoSplit` where a
data set has no such split. `load_validation` returns the split, or None where there is none.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast

from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._splits import NoSplit as NoSplit
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


def load_validation(name: str, root: str, **options: Any) -> Source | None:
    """Load the validation split of a data set; None if the source or the data set has none.

    Args:
        name: Name of the source.
        root: Folder or file of the data set.
        **options: Further arguments of the source's `load`.

    Raises:
        NameNotFound: There is no such source.
        DataError: The validation images cannot be used.
    """
    module = find(name)
    if "validation" not in getattr(module, "SPLITS", ()):
        return None
    try:
        return module.load(root, "validation", **options)
    except NoSplit:
        return None
