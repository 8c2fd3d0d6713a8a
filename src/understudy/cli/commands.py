"""The command line: one thin command per public function, without torch until it is needed."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import __version__
from understudy.cli import (
    bank,
    completion,
    doctor,
    export,
    finetune,
    predict,
    probe,
    process,
    push,
    reproduce,
    tune,
)
from understudy.cli.compare import compare_entry, demo_entry
from understudy.cli.flags import Argument, Entry, OneOf, parse, whole_number
from understudy.cli.output import console, print_lines, report_on
from understudy.cli.resume import RESUME, command_of, recipe_from, take_directory
from understudy.config.naming import named
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError, UnderstudyError, suggestion
from understudy.files import refuse_address

if TYPE_CHECKING:
    from understudy.experiment.run_directory import Run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an error is one sentence on the standard error and an exit status.

    Args:
        arguments: Words after `understudy`; default: those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    process.print_every_character()
    process.end_at_once()
    try:
        _run(words)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and process.reader_is_gone():
            sys.exit(1)
        if "--debug" in words:
            raise
        sentence, status = _sentence(error)
        print(f"understudy: {sentence}", file=sys.stderr)
        sys.exit(status)
    finally:
        process.leave_group()


def _sentence(error: BaseException) -> tuple[str, int]:
    """Return the message of an error, and the exit status."""
    if isinstance(error, UnderstudyError):
        return str(error), error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return "Stopped by SIGINT.", 130
    if isinstance(error, OSError) and error.filename and error.strerror:
        # Of the machine, not of ours: no permission, a name that is too long, a full disk.
        return f"{str(error.filename)[:200]!r} cannot be used: {error.strerror}.", 2
    # A bug: mistakes of the user are all `UnderstudyError`s.
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"Internal error, {words}. Add --debug for the traceback, and report it.", 1


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    if words[0].partition("=")[0] == "--resume":
        words = _with_command(words)
    if words[0] not in COMMANDS:
        raise RecipeError(
            f"There is no command {words[0]!r}{suggestion(words[0], COMMANDS)}. "
            f"There are: {', '.join(COMMANDS)}."
        )
    name, *rest = words
    COMMANDS[name].command(*parse(COMMANDS[name], name, rest))


def _with_command(words: Sequence[str]) -> list[str]:
    """Return the words with the command that continues the directory behind `--resume` before them.

    Raises:
        RecipeError: There is no directory behind it.
    """
    _, _, folder = words[0].partition("=")
    folder = folder or next(iter(words[1:]), "")
    if not folder or folder.startswith("--"):
        raise RecipeError("--resume needs the directory to continue, such as --resume runs/demo.")
    refuse_address(folder, "--resume")
    return [command_of(Path(folder)), *words]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {entry.help}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            "Train a small vision network to perform like a big one by mimicking its features.",
            "",
            "usage: understudy COMMAND ...",
            "",
            *lines,
            "",
            "For the options of a command: understudy COMMAND --help. Start with: understudy demo",
            "Continue what was interrupted: understudy --resume DIRECTORY",
        ]
    )


def _train(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment.train import train

    folder = take_directory(options, "train")
    loaded = recipe_from(folder, options, overrides)
    if loaded.each_method:
        methods = ", ".join(loaded.each_method)
        raise RecipeError(
            f"The recipe {named(loaded).name!r} has the methods {methods}, and "
            "`train` trains alone: use `understudy distill`, or `understudy compare` for a control "
            "too."
        )
    _execute(train, loaded, options)


def _distill(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment.train import distill

    folder = take_directory(options, "distill")
    loaded = recipe_from(folder, options, overrides)
    recipe = named(doctor.with_methods(loaded, options.method or ()))
    folder = Path(options.out or Path("runs") / recipe.name)
    with doctor.before_run(recipe, options, folder) as images:
        _execute(partial(distill, images=images), recipe, options)


def _execute(function: "Callable[..., Run]", recipe: Recipe, options: Namespace) -> None:
    run = function(
        recipe,
        out=options.out,
        resume=options.resume,
        extend=options.extend,
        device=options.device,
        progress=True,
        profile=options.profile,
        threads=options.threads,
    )
    print_lines(run)
    report_on([run.path])


def _evaluate(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.experiment.evaluate import evaluate
    from understudy.experiment.run_directory import Run
    from understudy.reporting import evaluation_table
    from understudy.reporting.measured_images import without_cka

    evaluation, folded = asdict(evaluate(options.run, overrides, device=options.device)), ""
    if options.run is not None:
        run = Run(Path(options.run))
        if run.finished:
            evaluation["layers"] = run.evaluation.get("layers")
            folded = _folded(evaluation["fidelity"] or {}, run.evaluation["fidelity"] or {})
        evaluation["trained_on"] = run.splits.get("train")
    console().print(evaluation_table(evaluation))
    for note in filter(None, [without_cka(evaluation["fidelity"], evaluation["images"]), folded]):
        print(note)


def _folded(fidelity: dict[str, Any], of_run: dict[str, Any]) -> str:
    """Say why features are compared otherwise than in the run; empty where they are not."""
    lost = [
        key
        for key, value in fidelity.items()
        if value is None and of_run.get(key) is not None and key != "cka"
    ]
    if not lost:
        return ""
    return (
        f"{', '.join(lost)}: the run compared features behind an embedding layer of its method, of "
        "the teacher's width. The saved student has it folded into its classifier, and CKA is of "
        "the features before it."
    )


def _report(options: Namespace, overrides: dict[str, Any]) -> None:
    report_on(options.runs, options.out)


def _list(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.cli.listing import table

    console().print(table(options.what))


def _show(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.cli.listing import show

    console().print(show(options.name))


_RECIPE = ("recipe", {"nargs": "?", "help": "Name of a shipped recipe, or path of a YAML file."})
_OUT = ("--out", {"help": "Directory to write; default: runs/<name>."})
_DEVICE = (
    "--device",
    {"help": "Device, such as `cpu` or `cuda:1`; default: a GPU, or else the CPU."},
)
_PROFILE = (
    "--profile",
    {"action": "store_true", "help": "Measure the time of each part of some steps."},
)
_JOBS = (
    "--jobs",
    {
        "type": whole_number("--jobs"),
        "metavar": "N",
        "help": "Runs to train at once; default: one for every GPU, or for every two cores if the "
        "student is small. The result does not depend on it.",
    },
)
_EXTEND: Argument = (
    "--extend",
    {
        "metavar": "EPOCHS",
        "type": whole_number("--extend"),
        "help": "Train a finished run so many epochs longer: its schedule becomes that of all its "
        "epochs, read from where it stands.",
    },
)
_THREADS = (
    "--threads",
    {
        "type": whole_number("--threads"),
        "metavar": "N",
        "help": "Threads of the CPU for a run; they decide the last digits of its result; default: "
        "all cores, and in `compare` and `demo` one if the student is small.",
    },
)
_METHOD = (
    "--method",
    {
        "nargs": "+",
        "metavar": "NAME",
        "help": "Methods to add to those of the recipe, with their published weights.",
    },
)
_SEEDS = (
    "--seeds",
    {
        "type": whole_number("--seeds"),
        "nargs": "+",
        "metavar": "N",
        "help": "One run of every arm per seed; default: 0 1 2.",
    },
)

COMMANDS: dict[str, Entry] = {
    "demo": demo_entry(_OUT, _SEEDS, RESUME, _DEVICE, _JOBS, _THREADS),
    "distill": Entry(
        "Train a student by mimicking a teacher.",
        _distill,
        (_RECIPE, _METHOD, _OUT, RESUME, _EXTEND, _DEVICE, _THREADS, _PROFILE, doctor.NO_DOCTOR),
        takes_recipe_keys=True,
    ),
    "train": Entry(
        "Train a network alone: a teacher, or a control.",
        _train,
        (_RECIPE, _OUT, RESUME, _EXTEND, _DEVICE, _THREADS, _PROFILE),
        takes_recipe_keys=True,
    ),
    "doctor": doctor.entry(_RECIPE, _METHOD, _DEVICE),
    "compare": compare_entry(_RECIPE, _SEEDS, _OUT, RESUME, _DEVICE, _JOBS, _THREADS),
    "finetune": finetune.entry(_SEEDS, _OUT, RESUME, _DEVICE, _JOBS, _THREADS),
    "tune": tune.entry(_RECIPE, _OUT, RESUME, _DEVICE, _JOBS, _THREADS),
    "reproduce": reproduce.entry(_SEEDS, _DEVICE),
    "bank": bank.entry(_RECIPE, _DEVICE),
    "push": push.entry(),
    "evaluate": Entry(
        "Evaluate the student of a run, or a network of other weights, on any labelled images.",
        _evaluate,
        (
            (
                "run",
                {
                    "nargs": "?",
                    "help": "Run directory; without, --student.name and --student.weights name "
                    "the network.",
                },
            ),
            _DEVICE,
        ),
        takes_recipe_keys=True,
    ),
    "probe": probe.entry(_DEVICE),
    "export": export.entry(),
    "predict": predict.entry(_DEVICE),
    "report": Entry(
        "Write the HTML report of one or several runs, or of a comparison.",
        _report,
        (
            (
                "runs",
                {
                    "nargs": "+",
                    "help": "Run directories, or one of a comparison or a reproduced table.",
                },
            ),
            ("--out", {"help": "Directory or .html file to write; default: the directory itself."}),
        ),
    ),
    "list": Entry(
        "List methods, models, data sources, tasks or recipes.",
        _list,
        (
            (
                "what",
                {
                    "type": OneOf("methods", "papers", "models", "data", "recipes", "tasks"),
                    "help": "methods, papers (of the methods), models, data, recipes or tasks.",
                },
            ),
        ),
    ),
    "show": Entry(
        "Explain a method, model, data source, task or recipe.",
        _show,
        (("name", {"help": "Its name."}),),
    ),
}
COMMANDS["completion"] = completion.entry(COMMANDS)
