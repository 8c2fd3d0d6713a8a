"""Training programs of other projects, one adapter each; none of their code is copied.

An adapter is a file with a table `METHODS` of methods under the project's own names, and a function
`program(checkout, method, pair, folder)`, which returns an iterator of optimizer steps, or None if
the project does not have the pair of networks. Its docstring says what the project needs to run on
a CPU with current packages.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from benchmarks.pairs import Pair
from benchmarks.peers._program import PeerError as PeerError
from benchmarks.peers._program import Program as Program


def names() -> list[str]:
    """Return the names of the projects that can be measured."""
    return [file.name for file in iter_modules(__path__) if not file.name.startswith("_")]


def programs(
    checkouts: Mapping[str, Path], pair: Pair, folder: Path
) -> Iterator[tuple[str, Program]]:
    """Yield every method of the projects, for a pair of networks.

    Args:
        checkouts: Name of a project → its folder.
        pair: Networks.
        folder: Folder whose `images` are read, and in which the programs write.
    """
    for peer, checkout in checkouts.items():
        adapter = import_module(f"{__name__}.{peer}")
        for method in adapter.METHODS:
            program = adapter.program(checkout, method, pair, folder)
            if program is not None:
                yield f"{peer} {method}", program
