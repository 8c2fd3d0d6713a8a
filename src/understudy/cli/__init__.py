"""The `understudy` command line: `main` runs one command."""

from understudy.cli.commands import main as main
