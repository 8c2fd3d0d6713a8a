"""The command `understudy reproduce`: its flags, and what it prints."""

from argparse import Namespace
from typing import Any

from understudy.cli.flags import Argument, Entry, number, whole_number
from understudy.cli.output import SEEDS
from understudy.cli.resume import RESUME, recorded, take_directory, take_recorded
from understudy.errors import RecipeError

_TABLE = (
    (
        "table",
        {
            "nargs": "?",
            "help": "Name of a shipped table, such as cifar100/kd, or a YAML file with rows.",
        },
    ),
    (
        "--rows",
        {
            "nargs": "+",
            "metavar": "NAME",
            "help": "Rows to train, with * and ?, such as 'resnet56_*'; default: all.",
        },
    ),
    (
        "--teachers",
        {
            "metavar": "DIR",
            "help": "Folder with a file of weights or a run for every teacher, by its name; "
            "default: teachers are trained.",
        },
    ),
    ("--out", {"help": "Directory of all tables; default: runs/reproduce. The same goes on."}),
    RESUME,
)
_JOBS = (
    "--jobs",
    {
        "type": whole_number("--jobs"),
        "default": 1,
        "metavar": "N",
        "help": "Runs at once, each in a process of its own; default: 1.",
    },
)
_SHORTER = (
    (
        "--budget",
        {
            "metavar": "TIME",
            "help": "Time to spend, such as 90s, 10m or 1.5h; default: no limit.",
        },
    ),
    (
        "--epochs-scale",
        {
            "type": number("--epochs-scale"),
            "metavar": "SHARE",
            "help": "Share of the published epochs to train, such as 0.25; default: 1.",
        },
    ),
)


def entry(seeds: Argument, device: Argument) -> Entry:
    """Return the command, with two flags that it shares with others."""
    return Entry(
        "Train rows of a published table to their protocol, beside the published figures.",
        _reproduce,
        (*_TABLE, seeds, *_SHORTER, _JOBS, device),
        takes_recipe_keys=True,
    )


def _reproduce(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment.progress import stdout_console
    from understudy.reporting import report
    from understudy.reporting.reproduction_page import terminal_table
    from understudy.reproduction.reproduce import reproduce

    overrides = _take_recorded(options, overrides)
    if not options.table:
        raise RecipeError("There is no table to reproduce: name one, such as cifar100/kd.")
    result = reproduce(
        options.table,
        overrides,
        rows=options.rows or (),
        seeds=options.seeds or SEEDS,
        budget=options.budget,
        epochs_scale=1.0 if options.epochs_scale is None else options.epochs_scale,
        teachers=options.teachers,
        out=options.out,
        jobs=options.jobs,
        device=options.device,
        progress=True,
    )
    stdout_console().print(terminal_table(result))
    print(f"report: {report(result)}")


def _take_recorded(options: Namespace, overrides: dict[str, Any]) -> dict[str, Any]:
    """Take what flags do not give from the directory that is continued; return the recipe keys."""
    folder = take_directory(options, "reproduce")
    if folder is None:
        return overrides
    take_recorded(options, folder, "table", "rows", "seeds", "epochs_scale", "teachers")
    # The directory of all tables, in which that of the table lies.
    options.out = recorded(folder, "out")
    return (recorded(folder, "overrides") or {}) | overrides
