"""Signals that ask a run to stop, after it saved its state."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM received meanwhile; a second SIGINT stops at once."""
    received: list[str] = []

    def remember(number: int, _: Any) -> None:
        received.append(signal.Signals(number).name)
        # Whoever cannot wait for the state to be saved presses Ctrl-C again.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Python allows handlers in the main thread alone
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
