"""The command `understudy tune`: its flags, and what it prints."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from understudy.cli.doctor import NO_DOCTOR, before_comparison
from understudy.cli.flags import Argument, Entry, whole_number
from understudy.cli.output import console, report_on
from understudy.cli.resume import recipe_from, take_directory, take_recorded
from understudy.config.naming import named

_METHODS: Argument = (
    "--methods",
    {
        "nargs": "+",
        "metavar": "NAME",
        "help": "Methods to choose from, such as: kd lshfm kd+nd; default: each of the recipe.",
    },
)
_TRIALS: Argument = (
    "--trials",
    {"type": whole_number("--trials"), "metavar": "N", "help": "Settings to try; default: 20."},
)
_BUDGET: Argument = (
    "--budget",
    {
        "metavar": "TIME",
        "help": "Time to spend on trials and judgement, such as 10m or 1.5h; default: no limit.",
    },
)
_SEEDS: Argument = (
    "--seeds",
    {
        "type": whole_number("--seeds"),
        "nargs": "+",
        "metavar": "N",
        "help": "Fresh seeds that judge the winner; default: the three after that of the recipe.",
    },
)


def entry(recipe: Argument, *shared: Argument) -> Entry:
    """Return the command, with arguments that it shares with others."""
    return Entry(
        "Search for method, weight and hyper-parameters, and judge the winner on fresh seeds.",
        _tune,
        (recipe, _METHODS, _TRIALS, _BUDGET, _SEEDS, *shared, NO_DOCTOR),
        takes_recipe_keys=True,
    )


def _tune(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.reporting.tuning_page import terminal_table
    from understudy.tuning.planned import planned
    from understudy.tuning.result import TUNED
    from understudy.tuning.tune import arms, default_place, tune

    folder = take_directory(options, "tune")
    recipe = named(recipe_from(folder, options, overrides), "search")
    take_recorded(options, folder, "methods", "trials", "seeds", "threads")
    asked: dict[str, Any] = {
        "methods": options.methods or (),
        "trials": 20 if options.trials is None else options.trials,
        "seeds": options.seeds or (),
    }
    place = Path(options.out or default_place(recipe))
    candidates = arms(recipe, **asked)
    plan = planned(recipe, len(candidates), asked["trials"], asked["seeds"], place)
    with before_comparison(candidates, options, place, plan) as images:
        tuning = tune(
            recipe,
            **asked,
            budget=options.budget,
            out=options.out,
            resume=options.resume,
            device=options.device,
            jobs=options.jobs,
            threads=options.threads,
            progress=True,
            images=images,
        )
    console().print(terminal_table(tuning))
    console().print(tuning.headline(), soft_wrap=True, highlight=False, markup=False)
    tuned = Path(tuning) / TUNED
    if tuned.is_file():
        print(f"To use it: understudy distill {shlex.quote(str(tuned))}")
    report_on([Path(tuning)])
