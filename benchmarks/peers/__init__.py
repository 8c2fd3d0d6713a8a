"""Other projects' training programs, one adapter each; nothing of them is copied here.

An adapter is a file with a table `METHODS`, the methods it can run by their names there, and a
function `program(checkout, method, pair, folder)`, which gives the program of one optimizer step
per item, or None for a pair of networks that the project does not have. Its docstring says what
the project needs to run on a CPU with current packages.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from benchmarks.pairs import Pair
from benchmarks.peers._program import PeerError as PeerError
from benchmarks.peers._program import Program as Program


def names() -> list[str]:
    """The projects that can be measured."""
    return [file.name for file in iter_modules(__path__) if not file.name.startswith("_")]


def programs(
    checkouts: Mapping[str, Path], pair: Pair, folder: Path
) -> Iterator[tuple[str, Program]]:
    """Every method of every project given, for a pair of networks.

    Args:
        checkouts: Name of a project → where it lies.
        pair: Networks.
        folder: Images in `folder / "images"`; the programs write beside them.
    """
    for peer, checkout in checkouts.items():
        adapter = import_module(f"{__name__}.{peer}")
        for method in adapter.METHODS:
            program = adapter.program(checkout, method, pair, folder)
            if program is not None:
                yield f"{peer} {method}", program
