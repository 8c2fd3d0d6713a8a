"""Flags of the command line: those of each command, and one for every key of a recipe."""

import re
from argparse import SUPPRESS, ArgumentError, HelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from understudy.config import tables
from understudy.config.recipe import Recipe
from understudy.config.schema import documentation, leaves
from understudy.errors import RecipeError, suggestion

Command = Callable[[Namespace, dict[str, Any]], None]
"""Takes the options of a command, and the keys of the recipe that its flags replace."""

_DEBUG = ("--debug", {"action": "store_true", "help": "Show the traceback of an error."})


@dataclass(frozen=True)
class Entry:
    """One command: what it does, its arguments, and whether it takes the keys of a recipe."""

    help: str
    command: Command
    arguments: tuple[tuple[str, dict[str, Any]], ...]
    takes_recipe_keys: bool = False

    def parser(self, name: str) -> ArgumentParser:
        """The parser of this command under its full name, `understudy …`."""
        places = [_place(flag, options) for flag, options in self.arguments if flag[0] != "-"]
        usage = [name, *places, "[options]", *["[--KEY VALUE ...]"] * self.takes_recipe_keys]
        parser = ArgumentParser(
            prog=name,
            usage=" ".join(usage),
            description=self.help,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=HelpFormatter,
        )
        for flag, options in (*self.arguments, _DEBUG):
            parser.add_argument(flag, **options)
        if self.takes_recipe_keys:
            _add_recipe_keys(parser)
        return parser


def parse(command: Entry, name: str, words: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """Options of a command, and the keys of the recipe that its flags replace.

    Raises:
        RecipeError: A flag does not exist or its value makes no sense.
    """
    parser = command.parser(f"understudy {name}")
    rest, methods = _methods_flags(words)
    try:
        options = parser.parse_args(rest)
    except ArgumentError as error:
        raise RecipeError(_one_sentence(str(error), parser)) from error
    known = {path for path, _, _ in leaves(Recipe)} - {"methods"}
    flat = vars(options.as_flat())
    return options, {key: value for key, value in flat.items() if key in known} | methods


def _place(name: str, options: Mapping[str, Any]) -> str:
    """A positional argument as the line of usage shows it."""
    forms = {"?": f"[{name.upper()}]", "+": f"{name.upper()} ..."}
    return forms.get(options.get("nargs", ""), name.upper())


def _add_recipe_keys(parser: ArgumentParser) -> None:
    help_of, groups = documentation(Recipe), {}
    for path, hint, default in leaves(Recipe):
        section = path.rpartition(".")[0]
        if section not in groups:
            title = f"keys of the recipe: {section}" if section else "keys of the recipe"
            groups[section] = parser.add_argument_group(title, help_of.get(section))
        if path == "methods":
            groups[section].description = "--methods.LABEL.KEY VALUE: see `understudy show METHOD`."
            continue
        shown = "" if default in (None, "", (), {}) else f" (default: {default})"
        groups[section].add_argument(
            f"--{path}",
            type=hint,
            default=SUPPRESS,
            help=f"{help_of[path]}{shown}".replace("%", "%%"),
            metavar=_metavar(path, hint),
        )


def _metavar(path: str, hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"{{{','.join(get_args(hint))}}}"
    return path.rpartition(".")[2].upper()


_VALUE = re.compile(r'Parser key "(?P<key>[^"]+)"(?P<element>[^:]*):.* value: (?P<value>.*)')
_CHOICE = re.compile(r"argument (?P<key>\S+): invalid choice: '(?P<value>.*)' \(choose from (.*)\)")
_UNKNOWN = re.compile(r"unrecognized arguments:.*?(?P<flag>--[^\s=]+)", re.IGNORECASE)


def _one_sentence(message: str, parser: ArgumentParser) -> str:
    """What the parser says of an error, in a sentence with the way out."""
    text, see = " ".join(message.split()), f"See {parser.prog} --help."
    if bad := _VALUE.search(text):
        if bad["key"] in documentation(Recipe) and not bad["element"]:
            Recipe.load({}, {bad["key"]: bad["value"]})  # which says what is wrong with it
        return f"--{bad['key']} cannot be {bad['value']!r}. {see}"
    if choice := _CHOICE.search(text):
        options = re.findall(r"[\w-]+", choice[3])
        near = suggestion(choice["value"], options)
        return f"{choice['value']!r} is not in the list{near}. There are: {', '.join(options)}."
    if unknown := _UNKNOWN.search(text):
        known = [name for action in parser._actions for name in action.option_strings]
        flag, named = unknown["flag"], f"{unknown['flag']}.name"
        near = suggestion(flag, [named] if named in known else known)
        return f"There is no flag {flag}{near}. {see}"
    return f"{text[:1].upper()}{text[1:].rstrip('.')}. {see}"


def _methods_flags(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--methods.LABEL.KEY VALUE` out of the words: a method's keys are its own."""
    rest: list[str] = []
    found: dict[str, Any] = {}
    queue = iter(words)
    for word in queue:
        if not word.startswith("--methods."):
            rest.append(word)
            continue
        path, equals, value = word[2:].partition("=")
        value = value if equals else next(queue, "")
        if not value or value.startswith("--"):
            raise RecipeError(f"--{path} needs a value, such as --{path} 2.")
        found[path] = tables.from_yaml(value)
    return rest, found
