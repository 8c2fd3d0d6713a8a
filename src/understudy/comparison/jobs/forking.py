"""How worker processes are started: forked from a process that has loaded torch. Loads none itself.

Loading torch takes seconds. A process of Python's own, the fork server, does it once, while the
parent is still busy with something else. Where processes cannot be forked, as on Windows, or not
once libraries of the system are loaded, as on macOS, workers are spawned: each loads torch itself.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from types import ModuleType

_PROGRAM = "understudy.comparison.jobs.worker_program"
"""What the fork server loads."""


def context() -> BaseContext:
    """Return the way to start workers: forked from the fork server where that is safe, or fresh."""
    if not _forks():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    forking = multiprocessing.get_context("forkserver")
    server = getattr(forkserver, "_forkserver", None)
    # A program that forks on its own account may have said what is to be loaded.
    if getattr(server, "_preload_modules", None) == ["__main__"]:
        forking.set_forkserver_preload([_PROGRAM])
    return forking


def load_ahead() -> None:
    """Start the fork server, if there is one: it loads torch beside whatever comes first."""
    if context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _forks() -> bool:
    """Return True if processes can be forked, and go on when they have loaded torch."""
    methods = multiprocessing.get_all_start_methods()
    # Apple's libraries end a process that is forked after they were used.
    return "forkserver" in methods and hasattr(os, "fork") and sys.platform != "darwin"


@contextmanager
def without_main() -> Iterator[None]:
    """Keep a new process from importing the user's script again, which might compare again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
