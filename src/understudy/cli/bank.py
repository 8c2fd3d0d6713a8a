"""The command `understudy bank`: its flags, and what it prints."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from understudy.cli.flags import Argument, Entry, OneOf, whole_number
from understudy.config.recipe import Recipe, key_of_bank
from understudy.errors import RecipeError

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
        (_ACTION, recipe, device, _SHARDS, _SHARD_IMAGES),
        takes_recipe_keys=True,
    )


def _bank(options: Namespace, overrides: dict[str, Any]) -> None:
    recipe = Recipe.load(options.recipe or {}, overrides)
    if options.action != "build" and (options.shards or options.shard_images):
        raise RecipeError(f"--shards and --shard-images are for `build`, not for {options.action}.")
    if not recipe.teachers:
        _act(recipe, options)
    for name in _with_bank(recipe, options.action):
        print(f"Teacher {name}:")
        _act(recipe.alone(name), options)


def _with_bank(recipe: Recipe, action: str) -> list[str]:
    """Return the names of the teachers that have a bank, or of all, to plan one.

    Raises:
        RecipeError: None has.
    """
    names = [name for name, x in recipe.teachers.items() if x.bank.path or action == "plan"]
    if recipe.teachers and not names:
        raise RecipeError(
            "No teacher of the recipe has a bank: give a folder for each, such as by "
            f"--{key_of_bank(next(iter(recipe.teachers)))}.path."
        )
    return names


def _act(recipe: Recipe, options: Namespace) -> None:
    """Plan, build or verify the bank of a recipe with one teacher."""
    from understudy.experiment import bank_build, bank_plan
    from understudy.experiment.progress import stdout_console
    from understudy.reporting.tables import plan_table

    if options.action == "plan":
        stdout_console().print(plan_table(bank_plan.plan(recipe, device=options.device)))
    elif options.action == "build" and _in_shards(recipe, options):
        _build_shards(recipe, options)
    elif options.action == "build":
        with _counted("records") as watch:
            bank = bank_build.fill(recipe, device=options.device, watch=watch)
        print(f"{recipe.bank.path}: {bank.filled():,} records")
    else:
        verified = bank_build.verify(recipe, device=options.device)
        print(
            f"{recipe.bank.path}: {verified.records} records computed again, none differs by more "
            f"than {verified.difference:.1e} of its length ({verified.tolerance:.0e} is allowed)"
        )


def _in_shards(recipe: Recipe, options: Namespace) -> bool:
    """Return True if the bank to build is one in shards."""
    from understudy.bank import in_shards

    if options.shards or (recipe.bank.path and in_shards(recipe.bank.path)):
        return True
    if options.shard_images:
        raise RecipeError("--shard-images is for a bank in shards: give --shards, such as 1/1.")
    return False


def _build_shards(recipe: Recipe, options: Namespace) -> None:
    from understudy.experiment.bank_shards import fill_shards

    with _counted("records") as watch:
        built = fill_shards(
            recipe,
            options.shards or (1, 1),
            images=options.shard_images,
            device=options.device,
            begin=print,
            watch=watch,
        )
    print(
        f"{built.place}: {built.built:,} shards built; {built.complete:,} of {built.total:,} "
        "are complete"
    )


def _part(text: str) -> tuple[int, int]:
    """Return the numbers of `I/N`."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise RecipeError(
            f"--shards cannot be {text!r}; give which part of how many, counted from 1, such as "
            "2/8."
        )
    return int(number), int(count)


_SHARDS: Argument = (
    "--shards",
    {
        "type": _part,
        "metavar": "I/N",
        "help": "Build part I of N (from 1) of a bank in shards; the parts need not know of each "
        "other, so that any scheduler can start them.",
    },
)
_SHARD_IMAGES: Argument = (
    "--shard-images",
    {
        "type": whole_number("--shard-images"),
        "metavar": "N",
        "help": "Images of a shard of a new bank; default: as many as 256 MB hold, 16,384 at most.",
    },
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
