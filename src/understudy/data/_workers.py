"""Worker processes that decode images: what they send where `/dev/shm` is full, and how they end.

Workers send images through `/dev/shm`, of which a container has 64 MB unless it is given more.
Where that is full, they send the bytes themselves, which is slower and changes no pixel.
"""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from understudy.batch import Objects
from understudy.errors import DataError

LOGGER = logging.getLogger("understudy")

Sent = Tensor | np.ndarray[Any, Any]
"""A tensor in shared memory, or bytes."""

SHARED_IS_FULL = (
    "/dev/shm, through which worker processes send images, is full: give it more room (docker run "
    "--shm-size 2g), or set data.workers to 0"
)


def in_shared_memory(x: Tensor) -> bool:
    """Move a tensor into shared memory; return False, and say so, if that is full."""
    try:
        x.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError):
        _warn()
        return False
    return True


@cache
def _warn() -> None:
    """Say it once in each process."""
    LOGGER.warning(f"{SHARED_IS_FULL}; until then images come slowly.")


def sent(images: Tensor) -> Sent:
    """Return images as a worker sends them; in other processes unchanged."""
    # Here, not where the queue would do it: an error there is printed and the batch lost, for
    # which the run would wait for ever.
    if get_worker_info() is None or in_shared_memory(images):
        return images
    return images.numpy()


def sent_objects(objects: Objects | None) -> Any:
    """Return objects as a worker sends them: as bytes, since they are many and small."""
    if objects is None or get_worker_info() is None:
        return objects
    return objects.as_arrays()


def received(images: Sent) -> Tensor:
    """Return images that `sent` has packed."""
    return images if isinstance(images, Tensor) else torch.from_numpy(images)


def received_objects(packed: Any) -> Objects | None:
    """Return objects that `sent_objects` has packed."""
    if packed is None or isinstance(packed, Objects):
        return packed
    return Objects.of_arrays(*packed)


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Say in a sentence that worker processes were killed, or cannot be started.

    Raises:
        DataError: They were.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if reason := _reason(error):
            raise DataError(f"{reason}. What was saved is intact.") from error
        raise


def _reason(error: RuntimeError | OSError) -> str:
    text = str(error)
    if "DataLoader worker (pid" in text:
        if "Bus error" in text or "shared memory" in text:
            return SHARED_IS_FULL
        return (
            f"A process that decodes images was killed ({text.splitlines()[0].rstrip('. ')}), "
            "which the system does where memory is short: set data.workers lower, or to 0"
        )
    if "shared memory" in text or (isinstance(error, OSError) and _of_semaphores(error)):
        return SHARED_IS_FULL
    if "ancdata" in text or (isinstance(error, OSError) and error.errno == errno.EMFILE):
        return (
            "Too many files are open for the processes that decode images: raise the limit "
            "(ulimit -n 65536), or set data.workers to 0"
        )
    return ""


def _of_semaphores(error: OSError) -> bool:
    """Return True for the error of a new semaphore, which names no file."""
    return error.errno == errno.ENOSPC and error.filename is None
