"""The command line: one command per public function, thin. Imports nothing heavy before it must."""

import os
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from understudy import __version__, recipe
from understudy.errors import RecipeError, UnderstudyError, suggestion
from understudy.recipe import Recipe

_RANK = os.environ.get("RANK")
"""Number of this process, if torchrun started several."""

Command = Callable[[Namespace, dict[str, Any]], None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors of the user are one sentence and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(words)
    except UnderstudyError as error:
        if "--debug" in words:
            raise
        print(f"understudy: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(0)
    finally:
        _leave()


def _leave() -> None:
    """Say goodbye to the other processes, if this was one of several."""
    if _RANK is None or "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    if words[0] not in COMMANDS:
        raise RecipeError(
            f"There is no command {words[0]!r}{suggestion(words[0], COMMANDS)}. "
            f"There are: {', '.join(COMMANDS)}."
        )
    entry = COMMANDS[words[0]]
    rest, methods = _methods_flags(words[1:])
    parser = entry.parser(f"understudy {words[0]}")
    options = _parse(parser, rest)
    entry.command(options, _overrides(options) | methods)


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
            "understudy COMMAND --help tells more. Start with: understudy demo",
        ]
    )


@dataclass(frozen=True)
class _Entry:
    """One command: what it does, its arguments, and whether it takes the keys of a recipe."""

    help: str
    command: Command
    arguments: tuple[tuple[str, dict[str, Any]], ...]
    takes_recipe_keys: bool = False

    def parser(self, name: str) -> ArgumentParser:
        parser = ArgumentParser(
            prog=name, description=self.help, allow_abbrev=False, exit_on_error=False
        )
        for flag, options in (*self.arguments, _DEBUG):
            parser.add_argument(flag, **options)
        if self.takes_recipe_keys:
            _add_recipe_keys(parser)
        return parser


def _add_recipe_keys(parser: ArgumentParser) -> None:
    help_of = recipe.documentation()
    for path, hint, default in recipe.leaves():
        if path != "methods":
            text = f"{help_of[path]} (recipe's default: {default})".replace("%", "%%")
            parser.add_argument(f"--{path}", type=hint, default=SUPPRESS, help=text)


def _parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    try:
        return parser.parse_args(words)
    except ArgumentError as error:
        raise RecipeError(_one_sentence(str(error), parser)) from error


def _one_sentence(message: str, parser: ArgumentParser) -> str:
    text = " ".join(message.split())
    unknown = next((w for w in text.split() if w.startswith("--")), "")
    if text.startswith("unrecognized") and unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        return f"There is no flag {unknown}{suggestion(unknown, known)}. See {parser.prog} --help."
    return f"{text.rstrip('.')}. See {parser.prog} --help."


def _methods_flags(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--methods.LABEL.KEY VALUE` out of the words: a method's keys are its own."""
    rest, found = [], {}
    queue = iter(words)
    for word in queue:
        if word.startswith("--methods."):
            path, equals, value = word[2:].partition("=")
            found[path] = yaml.safe_load(value if equals else next(queue, ""))
        else:
            rest.append(word)
    return rest, found


def _overrides(options: Namespace) -> dict[str, Any]:
    known = {path for path, _, _ in recipe.leaves()}
    return {key: value for key, value in vars(options.as_flat()).items() if key in known}


def _recipe(options: Namespace, overrides: dict[str, Any]) -> Recipe:
    """The recipe named on the command line, with every key that a flag replaced."""
    chosen: dict[str, Any] = (
        {f"methods.{name}": {} for name in options.method or ()} if "method" in options else {}
    )
    overrides = {**chosen, **overrides}
    if options.recipe is None:
        return recipe.parse({}, overrides)
    return recipe.load(options.recipe, overrides)


def _train(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.progress import Terminal
    from understudy.run import distill, train

    wanted = _recipe(options, overrides)
    execute = distill if "method" in options else train
    run = execute(
        wanted,
        out=options.out,
        resume=options.resume,
        device=options.device,
        watcher=Terminal(),
    )
    _finish(run.path)


def _finish(path: Path) -> None:
    if _RANK not in (None, "0"):
        return
    from understudy.reporting import report

    print(f"report: {report([path])}")


def _compare(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.comparison import compare
    from understudy.progress import Terminal

    wanted = _recipe(options, overrides)
    out = Path(options.out or f"runs/{wanted.name}")
    compare(
        wanted,
        methods=options.methods or (),
        seeds=options.seeds,
        out=out,
        device=options.device,
        watcher=Terminal(),
    )
    _show_comparison(out)


def _show_comparison(path: Path) -> None:
    if _RANK not in (None, "0"):
        return
    from rich.console import Console

    from understudy.reporting import report, terminal_table

    page = report([path])
    Console().print(terminal_table(path))
    print(f"report: {page}")


def _demo(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.demonstration import demo
    from understudy.progress import Terminal

    out = demo(out=options.out, seeds=options.seeds, device=options.device, watcher=Terminal())
    _show_comparison(out)


def _evaluate(options: Namespace, overrides: dict[str, Any]) -> None:
    from rich.console import Console

    from understudy.reporting.tables import evaluation_table
    from understudy.run import evaluate

    found = evaluate(options.run, overrides, device=options.device)
    Console().print(evaluation_table(asdict(found)))


def _report(options: Namespace, overrides: dict[str, Any]) -> None:
    from understudy.reporting import report

    print(f"report: {report(options.runs, out=options.out)}")


def _list(options: Namespace, overrides: dict[str, Any]) -> None:
    from rich.console import Console

    from understudy.catalogue import table

    Console().print(table(options.what))


def _show(options: Namespace, overrides: dict[str, Any]) -> None:
    from rich.console import Console

    from understudy.catalogue import show

    Console().print(show(options.name))


_DEBUG = ("--debug", {"action": "store_true", "help": "Show the traceback of an error."})
_RECIPE = ("recipe", {"nargs": "?", "help": "A recipe: a file, or the name of a shipped one."})
_OUT = ("--out", {"type": str | None, "help": "Where to write; default: runs/<name>."})
_DEVICE = ("--device", {"type": str | None, "help": "`cpu`; default: the best device there is."})
_RESUME = ("--resume", {"action": "store_true", "help": "Continue an interrupted run exactly."})
_METHOD = ("--method", {"nargs": "+", "help": "Methods to add, with their published weights."})
_METHODS = ("--methods", {"nargs": "+", "help": "Arms, such as: kd lshfm kd+nd."})
_SEEDS = (
    "--seeds",
    {"type": int, "nargs": "+", "default": [0, 1, 2], "help": "One run of each arm per seed."},
)

COMMANDS = {
    "demo": _Entry(
        "See it work: teacher, control and methods on images that come with Understudy.",
        _demo,
        (_OUT, _SEEDS, _DEVICE),
    ),
    "distill": _Entry(
        "Train a student by mimicking a teacher.",
        _train,
        (_RECIPE, _METHOD, _OUT, _RESUME, _DEVICE),
        takes_recipe_keys=True,
    ),
    "train": _Entry(
        "Train a network alone: a teacher, or a control.",
        _train,
        (_RECIPE, _OUT, _RESUME, _DEVICE),
        takes_recipe_keys=True,
    ),
    "compare": _Entry(
        "Run a control and several methods over several seeds; say which helped.",
        _compare,
        (_RECIPE, _METHODS, _SEEDS, _OUT, _DEVICE),
        takes_recipe_keys=True,
    ),
    "evaluate": _Entry(
        "Measure the student of a run, on its own or on other data.",
        _evaluate,
        (("run", {"help": "A run directory."}), _DEVICE),
        takes_recipe_keys=True,
    ),
    "report": _Entry(
        "Write the page of one or several runs, or of a comparison.",
        _report,
        (("runs", {"nargs": "+", "help": "Run or comparison directories."}), _OUT),
    ),
    "list": _Entry(
        "List what there is.",
        _list,
        (
            (
                "what",
                {"choices": ["methods", "models", "data", "recipes", "tasks"], "help": "Of what."},
            ),
        ),
    ),
    "show": _Entry(
        "Explain a method, model, data source, task or recipe.",
        _show,
        (("name", {"help": "Its name."}),),
    ),
}
