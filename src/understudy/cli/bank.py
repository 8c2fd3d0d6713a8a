"""The command `understudy bank`: its flags, and what it prints."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from understudy.cli.flags import Argument, Entry, OneOf
from understudy.config.recipe import Recipe

_ACTION = (
    "action",
    {
        "type": OneOf("plan", "build", "verify"),
        "help": "plan (size and time), build (fill) or verify (compute records again).",
    },
)


def entry(recipe: Argument, device: Argument) -> Entry:
    """Return the command, with two arguments that it shares with others."""
    return Entry(
        "Plan, build or verify a bank of stored teacher outputs.",
        _bank,
        (_ACTION, recipe, device),
        takes_recipe_keys=True,
    )


def _bank(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment import bank_build
    from understudy.experiment.progress import stdout_console
    from understudy.reporting.tables import plan_table

    recipe = Recipe.load(options.recipe or {}, overrides)
    if options.action == "plan":
        stdout_console().print(plan_table(bank_build.plan(recipe, device=options.device)))
    elif options.action == "build":
        with _counted("records") as watch:
            bank = bank_build.fill(recipe, device=options.device, watch=watch)
        print(f"{bank.path}: {bank.filled():,} records")
    else:
        verified = bank_build.verify(recipe, device=options.device)
        print(
            f"{recipe.bank.path}: {verified.records} records computed again, none differs by more "
            f"than {verified.difference:.1e} of its length ({verified.tolerance:.0e} is allowed)"
        )


@contextmanager
def _counted(things: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar and yield a function that sets it: number done, number of all."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from understudy.experiment.progress import stdout_console

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=stdout_console()) as bar:
        task = bar.add_task(things, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
