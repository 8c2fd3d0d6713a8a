"""What the command line does to its process: output, end, and the group that torchrun makes."""

import atexit
import gc
import os
import sys
from io import TextIOWrapper


def print_every_character() -> None:
    """Print `?` for what an encoding lacks: of Windows, where output goes into a file or a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def end_at_once() -> None:
    """Let this process end without the last search for objects that refer to each other.

    Over all that torch has loaded it takes 1.4 seconds of the processor after the last word was
    printed, and on a machine with much else to do a minute.
    """
    atexit.register(gc.freeze)


def reader_is_gone() -> bool:
    """Return True if nobody reads the output any more, as in `| head`; nothing more is printed."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # What is left would be flushed at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def leave_group() -> None:
    """Leave the group of processes, if torchrun started several."""
    if "RANK" not in os.environ or "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
