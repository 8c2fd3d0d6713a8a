"""The command `understudy completion`: what a shell needs to complete commands, flags and names."""

import ast
import shlex
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from understudy.cli.flags import Entry, OneOf
from understudy.cli.list_flags import is_list
from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.config.schema import leaves

SHELLS = ("bash", "zsh", "fish")

_HINTS = {path: hint for path, hint, _ in leaves(Recipe)}
_PACKAGE = Path(__file__).parents[1]

_FOLDERS = (
    *("out", "resume", "run", "runs", "folder", "draw", "teachers"),
    *("data.root", "data.decoded", "bank.path", "student.weights", "teacher.weights"),
)
_FILES = ("student", "pictures", "beside")

_TRAINING = ("distill", "compare", "tune", "reproduce", "bank", "doctor")
"""Commands that complete the hyper-parameters of methods."""


def entry(commands: Mapping[str, Entry]) -> Entry:
    """Return the command, which completes the others."""

    def print_script(options: Namespace, overrides: dict[str, Any]) -> None:
        print(script(options.shell, commands))

    return Entry(
        "Print what a shell needs to complete commands, flags, recipe keys and names.",
        print_script,
        (
            (
                "shell",
                {
                    "type": OneOf(*SHELLS),
                    "help": "bash (> ~/.local/share/bash-completion/completions/understudy), zsh "
                    "(> a file _understudy in a folder of $fpath) or fish "
                    "(> ~/.config/fish/completions/understudy.fish).",
                },
            ),
        ),
    )


def script(shell: str, commands: Mapping[str, Entry]) -> str:
    """Return the script that makes a shell complete the command line, without starting Python.

    Args:
        shell: One of `SHELLS`, which the parser of the command has checked.
        commands: The commands by name.
    """
    import shtab

    parser = ArgumentParser(prog="understudy", add_help=False)
    parser.add_argument("--help", action="store_true", help="Show the commands.")
    parser.add_argument("--version", action="store_true", help="Show the version.")
    resume = parser.add_argument("--resume", help="Continue what a directory holds.")
    _set(resume, "complete", shtab.DIRECTORY)
    below = parser.add_subparsers(dest="command")
    for name, command in commands.items():
        inner = below.add_parser(name, help=_one_line(command.help), add_help=False)
        command.fill(inner, description=_one_line)
        if name in _TRAINING:
            _add_methods(inner)
        for action in inner._actions:
            _complete(action, name)
    return str(shtab.complete(parser, shell=shell))


def _complete(action: Action, command: str) -> None:
    """Tell what completes the value of a flag or an argument."""
    import shtab

    if is_list(_HINTS.get(action.dest)):
        action.nargs = "+"
    if names := _choices(action, command):
        action.choices = names
    elif action.dest in ("recipe", "table"):
        _set(action, "complete", _recipes())
    elif action.dest in _FOLDERS:
        # A run, or a file of weights or images: folders lead to both.
        _set(action, "complete", shtab.FILE if "." in action.dest else shtab.DIRECTORY)
    elif action.dest in _FILES:
        _set(action, "complete", shtab.FILE)


def _choices(action: Action, command: str) -> list[str]:
    """Return the values that a flag takes, as far as they are names; none for others."""
    if isinstance(action.type, OneOf):
        return list(action.type.names)
    named = _literal(_HINTS.get(action.dest))
    if named:
        return named
    if action.dest == "data.source":
        return _modules("data/sources")
    if action.dest in ("method", "methods"):
        return _modules("methods")
    if action.dest in ("student.name", "teacher.name", "students"):
        return _networks()
    if command == "show" and action.dest == "name":
        return sorted({*_modules("methods"), *_modules("data/sources"), *_modules("tasks")})
    return []


def _literal(hint: Any) -> list[str]:
    """Return the values of a type, of which there are few; none of others."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    options = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    inner = [_literal(option) for option in options if isinstance(option, type) or get_args(option)]
    return next(filter(None, inner), [])


@cache
def _recipes() -> dict[str, Any]:
    """Return what completes a recipe, in each shell: a shipped name, or a YAML file."""
    names = " ".join(sorted({*tables.tables(), *tables.shipped()}))
    bash = (
        "_understudy_recipes() {\n"
        f'  compgen -W {shlex.quote(names)} -- "$1"\n'
        "  compgen -f -X '!*.yaml' -- \"$1\"\n"
        '  compgen -d -- "$1"\n'
        "}"
    )
    zsh = (
        "_understudy_recipes() {\n"
        f"  _alternative 'recipes:recipe:({names})' 'files:file:_files -g \"*.yaml\"'\n"
        "}"
    )
    fish = (
        "function _understudy_recipes\n"
        f"  printf '%s\\n' {names}\n"
        "  __fish_complete_suffix .yaml\n"
        "end"
    )
    return {
        "bash": "_understudy_recipes",
        "zsh": "_understudy_recipes",
        "fish": "(_understudy_recipes)",
        "preamble": {"bash": bash, "zsh": zsh, "fish": fish},
    }


@cache
def _networks() -> list[str]:
    """Return the networks that shipped recipes name, without those of other libraries."""
    return sorted({x for x in map(str, _names_in_recipes()) if x and ":" not in x})


def _names_in_recipes() -> Iterator[Any]:
    for path in tables.tables().values():
        queue = [tables.content_of(path)]
        while queue:
            for key, value in queue.pop().items():
                if key in ("student", "teacher", "student.name", "teacher.name"):
                    yield value.get("name", "") if isinstance(value, dict) else value
                elif isinstance(value, dict):
                    queue.append(value)


@cache
def _modules(folder: str) -> list[str]:
    """Return the names of a registry: those of its files."""
    files = (_PACKAGE / folder).glob("[!_]*.py")
    return sorted(file.stem for file in files)


def _add_methods(parser: ArgumentParser) -> None:
    """Add a flag for every hyper-parameter of the shipped methods, read without importing them."""
    for name in _modules("methods"):
        for key in ("weight", *_hyper_parameters(_PACKAGE / "methods" / f"{name}.py")):
            help_text = f"Weight of {name}." if key == "weight" else f"Hyper-parameter of {name}."
            parser.add_argument(f"--methods.{name}.{key}", help=help_text)


def _hyper_parameters(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        argument.arg
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for function in node.body
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
        # No other class of these files takes a student and a teacher.
        if [argument.arg for argument in function.args.args] == ["self", "student", "teacher"]
        for argument in function.args.kwonlyargs
    ]


def _one_line(text: str) -> str:
    """Return the first sentence of a help, which shells show beside a flag."""
    line = " ".join(text.split()).replace("%%", "%").replace("`", "")
    return line.partition(". ")[0].partition("; ")[0].replace("%", "%%")


def _set(action: Action, name: str, value: Any) -> None:
    """Set an attribute that shtab reads and argparse does not have."""
    setattr(cast(Any, action), name, value)
