"""What long measurements say of themselves, passed on to whoever watches."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

LOGGER = logging.getLogger("understudy")
"""Methods write a line of `info` for each finished stage."""


@final
class _Told(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())


@contextmanager
def narrated(note: Callable[[str], None] | None) -> Iterator[None]:
    """Call `note` with every line meanwhile; without it the lines go where logging sends them."""
    if note is None:
        yield
        return
    handler, level = _Told(note), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
