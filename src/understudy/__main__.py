"""`python -m understudy` is the command `understudy`."""

from understudy.cli.commands import main

main()
