"""Messages of the logger: kept while a recipe is built, and not repeated once they were printed."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("understudy")


@contextmanager
def kept(warnings: list[str], *, silent: bool) -> Iterator[None]:
    """Append warnings of the library to a list instead of printing them.

    Args:
        warnings: Takes their sentences, each once.
        silent: Drop messages of lower levels too.
    """

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return not silent
        if (sentence := record.getMessage()) not in warnings:
            warnings.append(sentence)
        return False

    LOGGER.addFilter(keep)
    try:
        yield
    finally:
        LOGGER.removeFilter(keep)


@contextmanager
def unrepeated(sentences: Collection[str]) -> Iterator[None]:
    """Drop warnings that were printed already."""

    def is_new(record: logging.LogRecord) -> bool:
        return record.getMessage() not in sentences

    LOGGER.addFilter(is_new)
    try:
        yield
    finally:
        LOGGER.removeFilter(is_new)
