"""Processes that tests start, watch and end."""

import subprocess
import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait for what a process is about to do; whoever waits in vain meets the suite's timeout."""
    while not condition():
        assert process.poll() is None, "the process ended too early"
        time.sleep(0.005)
