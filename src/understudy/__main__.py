"""`python -m understudy` is the command `understudy`."""

import os
import sys

# `python -m` puts the current folder first: a `rich.py` in it would be imported instead of ours.
if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 - pathlib would come from there too
    del sys.path[0]

from understudy.cli.commands import main

main()
