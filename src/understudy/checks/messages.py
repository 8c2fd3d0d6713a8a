"""Messages of the logger: kept while a recipe is built, and each warning said once.

A warning that concerns all runs of a comparison, though each puts it in numbers of its own, names
what it is about: `LOGGER.warning(sentence, extra={"subject": …})`. Others are known by their words.
"""

import logging
from collections.abc import Iterable, Iterator
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
def unrepeated(sentences: Iterable[str] = ()) -> Iterator[None]:
    """Say every warning once: drop those that were printed before, or already inside of the block.

    Args:
        sentences: What was printed before.
    """
    said = set(sentences)

    def is_new(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        keys = {x for x in (record.getMessage(), getattr(record, "subject", None)) if x}
        repeated = bool(keys & said)
        said.update(keys)
        return not repeated

    LOGGER.addFilter(is_new)
    try:
        yield
    finally:
        LOGGER.removeFilter(is_new)
