"""What the command line does to its process: its output, and the group that torchrun makes."""

import os
import sys
from io import TextIOWrapper


def print_every_character() -> None:
    """Print `?` for what an encoding lacks: of Windows, where output goes into a file or a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def leave_group() -> None:
    """Leave the group of processes, if torchrun started several."""
    if "RANK" not in os.environ or "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
