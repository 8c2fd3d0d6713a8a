"""A clock that stands still: time passes when a test says so."""

import time

import pytest


class Clock:
    """The time that `time.monotonic` and `time.perf_counter` tell, in seconds.

    Args:
        monkeypatch: Puts the clock in their place until the test ends.

    Attributes:
        now: The time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: self.now)
