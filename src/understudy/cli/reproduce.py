"""The command `understudy reproduce`: its flags, and what it prints."""

from argparse import Namespace
from typing import Any

from understudy.cli.flags import Argument, Entry, number, whole_number

_TABLE = (
    ("table", {"help": "Name of a shipped table, such as cifar100/kd, or a YAML file with rows."}),
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
            "default": 1.0,
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

    result = reproduce(
        options.table,
        overrides,
        rows=options.rows or (),
        seeds=options.seeds,
        budget=options.budget,
        epochs_scale=options.epochs_scale,
        teachers=options.teachers,
        out=options.out,
        jobs=options.jobs,
        device=options.device,
        progress=True,
    )
    stdout_console().print(terminal_table(result))
    print(f"report: {report(result)}")
