"""A command whose reader has all it wants, as in `| head`, ends without a word."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["--version"], ["completion", "bash"]], ids=" ".join)
def test_a_closed_pipe_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "understudy", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
