"""Every error a user can cause, in one tree.

Each message says what was asked, what there is, and what to do.

    UnderstudyError            the root: catch this to catch everything below
    ├── NameNotFound           a name that does not exist; the message offers the nearest one
    ├── RecipeError            a recipe that cannot be read or does not make sense
    ├── DataError              a folder, file or class list that cannot be used
    ├── NetworkError           a network that cannot be found, loaded or tapped
    ├── ShapeError             a feature that is missing or has the wrong form for a method
    ├── RunError               a run directory that is missing, damaged or from another recipe
    │   └── Busy               a directory that another process writes
    ├── BankError              stored teacher outputs that are of another teacher, or damaged
    ├── OutOfMemory            a step that fits into memory in no number of parts
    ├── Unfinished             runs of a comparison that failed, while others went on
    ├── Diverged               a loss became NaN or infinite; names the term
    └── Interrupted            stopped by a signal after saving; says how to continue
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_WITHOUT_MEMORY = (
    *("out of memory", "not enough memory", "can't allocate memory", "bad_alloc"),
    "could not create a primitive",  # oneDNN's only message without memory
    "Storage size calculation overflowed",  # a tensor that no memory could hold
)


class UnderstudyError(Exception):
    """Root of all errors that are not a fault of Understudy itself."""

    exit_status = 2


class RecipeError(UnderstudyError):
    """A recipe that cannot be read or does not make sense."""


class DataError(UnderstudyError):
    """A folder, file or class list that cannot be used."""


class NetworkError(UnderstudyError):
    """A network that cannot be found, loaded or tapped."""


class ShapeError(UnderstudyError):
    """A feature that is missing or has the wrong form for a method."""


class RunError(UnderstudyError):
    """A run directory that is missing, damaged or made by another recipe."""


class Busy(RunError):
    """A directory that another process writes."""


class BankError(UnderstudyError):
    """Stored teacher outputs that are of another teacher or of other images, or damaged."""


class OutOfMemory(UnderstudyError):
    """A step of training does not fit into memory, however small its parts."""


class Unfinished(UnderstudyError):
    """Runs of a comparison failed, while others went on."""

    exit_status = 1


class Diverged(UnderstudyError):
    """A loss became NaN or infinite."""

    exit_status = 1


class Interrupted(UnderstudyError):
    """Stopped by a signal, after the state was saved."""

    exit_status = 130


class NameNotFound(UnderstudyError):
    """A name that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        super().__init__(
            f"There is no {kind} {short(name, 200)}{suggestion(name, known)}. "
            f"There are: {', '.join(known) or 'none'}.{' ' + hint if hint else ''}"
        )


def short(value: Any, most: int = 100) -> str:
    """Return a value as Python writes it, cut in the middle if it has more characters."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:60]}…{text[-20:]}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The words ` (did you mean 'x'?)` if some known name is close to `name`, else nothing."""
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def memory_ran_out(error: Exception) -> bool:
    """Return True if an error says that memory ran out, on a GPU or a CPU."""
    # On a CPU, libraries raise plain RuntimeErrors, known by their messages alone.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in _WITHOUT_MEMORY)
    )
