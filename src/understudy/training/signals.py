"""Signals that ask a run to stop, after it saved its state; a second signal ends it at once."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from typing import Any

_ASKING = (signal.SIGINT, signal.SIGTERM)

_LISTENING: list[list[str]] = []
"""Lists of all `stop_signals` blocks that this process is in."""


def ask_to_stop(name: str) -> bool:
    """Stop what listens to signals as if one of that name had arrived; return False if none does.

    It does not count as the first of two signals.
    """
    for received in _LISTENING:
        received[:] = received or [name]
    return bool(_LISTENING)


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM received meanwhile; a second one ends the process.

    Whatever the process hangs in, the second signal ends it at once, with the exit status that a
    shell gives to the signal. In a notebook or at a prompt it raises `KeyboardInterrupt` instead.
    Outside of the main thread, where Python allows no handlers, nothing is collected.
    """
    received: list[str] = []
    if current_thread() is not main_thread():
        yield received
        return

    def remember(number: int, _: Any) -> None:
        received.append(signal.Signals(number).name)
        for asking in _ASKING:
            signal.signal(asking, signal.default_int_handler if _interactive() else signal.SIG_DFL)

    before = {number: signal.signal(number, remember) for number in _ASKING}
    _LISTENING.append(received)
    try:
        with _ended_by_second():
            yield received
    finally:
        _LISTENING.remove(received)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_by_second() -> Iterator[None]:
    """End the process at the second signal even where Python's own handlers cannot run.

    They run between two lines of Python only: not while the main thread waits inside of a library,
    such as for another process that is gone. The number of a signal is written to a socket at once,
    and a thread of its own counts what arrives there.
    """
    if _interactive():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    Thread(target=_count, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()


def _count(reader: socket.socket) -> None:
    """End the process when the second signal arrives; return when the other end is closed."""
    asked = 0
    with reader:
        while number := reader.recv(1):
            asked += number[0] in _ASKING
            if asked == 2:
                os._exit(128 + number[0])


def _interactive() -> bool:
    """Return True in a notebook or at a prompt, which live longer than one run."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


# Forked workers would write their signals into the socket of the process that forked them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
