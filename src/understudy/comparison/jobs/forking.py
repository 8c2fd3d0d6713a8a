"""How worker processes are started: forked from a process that has loaded torch. Loads none itself.

Loading torch takes seconds. A process of Python's own, the fork server, does it once, while the
parent is still busy with something else.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from types import ModuleType

_PROGRAM = "understudy.comparison.jobs.worker_program"
"""What the fork server loads."""


def context() -> BaseContext:
    """Return the way to start workers: forked from the fork server where there is one, or fresh."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    server = getattr(forkserver, "_forkserver", None)
    # A program that forks on its own account may have said what is to be loaded.
    if getattr(server, "_preload_modules", None) == ["__main__"]:
        forking.set_forkserver_preload([_PROGRAM])
    return forking


def load_ahead() -> None:
    """Start the fork server, if there is one: it loads torch beside whatever comes first."""
    if context().get_start_method() == "forkserver":
        forkserver.ensure_running()


@contextmanager
def without_main() -> Iterator[None]:
    """Keep a new process from importing the user's script again, which might compare again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
