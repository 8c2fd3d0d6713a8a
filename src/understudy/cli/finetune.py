"""The command `understudy finetune`: its flags, and what it prints."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from understudy.cli.compare import refuse_failed
from understudy.cli.flags import Argument, Entry
from understudy.cli.output import RANK, console, report_on
from understudy.cli.resume import take_directory, take_recorded
from understudy.errors import RecipeError

_DISTILLED = (
    "distilled",
    {
        "nargs": "?",
        "metavar": "DISTILLED",
        "help": "Directory of a comparison, usually of --task none; or the recipe of one, which is "
        "compared first.",
    },
)
_RECIPE = (
    "recipe",
    {
        "nargs": "?",
        "metavar": "RECIPE",
        "help": "Recipe of the fine-tuning; default: the images of DISTILLED, and defaults.",
    },
)
_LABELS = (
    "--labels",
    {
        "nargs": "+",
        "metavar": "N",
        "help": "How many training images keep their label, such as 500, 10%% or all; each has a "
        "control and a verdict of its own; default: all.",
    },
)
_METHODS = (
    "--methods",
    {
        "nargs": "+",
        "metavar": "NAME",
        "help": "Arms of DISTILLED to fine-tune beside its control; default: all.",
    },
)


def entry(*shared: Argument) -> Entry:
    """Return the command, with arguments that it shares with others."""
    return Entry(
        "Fine-tune distilled students with few or all labels, beside one that was not distilled.",
        _finetune,
        (_DISTILLED, _RECIPE, _LABELS, _METHODS, *shared),
        takes_recipe_keys=True,
    )


def _finetune(options: Namespace, overrides: dict[str, Any]) -> None:
    folder = take_directory(options, "finetune")
    take_recorded(options, folder, "distilled", "recipe", "labels", "methods", "seeds", "threads")
    if not options.distilled:
        raise RecipeError(
            "Name the comparison whose students to fine-tune, or its recipe: understudy finetune "
            "runs/no_labels --labels 1% 10% all."
        )
    from understudy.comparison.finetune import finetune

    result = finetune(
        options.distilled,
        options.recipe,
        overrides,
        labels=options.labels or ("all",),
        methods=options.methods or (),
        seeds=options.seeds,
        out=options.out,
        resume=bool(options.resume),
        device=options.device,
        jobs=options.jobs,
        threads=options.threads,
        progress=True,
    )
    if RANK == "0":
        from understudy.reporting.finetune_page import terminal_table

        console().print(terminal_table(result))
    report_on([Path(result)])
    refuse_failed(result.failed)
