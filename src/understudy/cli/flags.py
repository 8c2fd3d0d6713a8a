"""Flags of the command line: those of each command, and one for every key of a recipe."""

from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, final, get_args, get_origin

import yaml

from understudy.cli.list_flags import as_text, bracketed, is_list
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.config.schema import bare, convert, documentation, leaves, limits, may_be_auto
from understudy.config.yaml_text import from_yaml
from understudy.errors import RecipeError, suggestion
from understudy.files import refuse_address

Command = Callable[[Namespace, dict[str, Any]], None]
"""Takes the options of a command, and the recipe keys that its flags replace."""

Argument = tuple[str, dict[str, Any]]
"""Name of a positional argument or a flag, and the options of `add_argument`."""

_DEBUG = ("--debug", {"action": "store_true", "help": "Show the traceback of an error."})

_WRITTEN = ("out", "draw", "beside")
_PLACES = (*_WRITTEN, "run", "runs", "folder", "student")
"""Options that name a file or folder of this machine."""

_GROUPS = tuple(path for path, hint, _ in leaves(Recipe) if get_origin(hint) is dict)
"""Recipe keys whose entries are free, such as `methods`: `--methods.kd.weight 2` sets one entry."""


@final
class _Parser(ArgumentParser):
    """Raises every mistake as a `RecipeError` instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(
            f"{message[:1].upper()}{message[1:].rstrip('.')}. See {self.prog} --help."
        )


@dataclass(frozen=True)
class Entry:
    """One command: its help, its function, its arguments, and whether it takes recipe keys."""

    help: str
    command: Command
    arguments: tuple[Argument, ...]
    takes_recipe_keys: bool = False

    def parser(self, name: str) -> ArgumentParser:
        """Return the parser of this command under its full name, `understudy …`."""
        positionals = [
            _positional(flag, options) for flag, options in self.arguments if flag[0] != "-"
        ]
        usage = [name, *positionals, "[options]", *["[--KEY VALUE ...]"] * self.takes_recipe_keys]
        parser = _Parser(
            prog=name,
            usage=" ".join(usage),
            description=self.help,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.fill(parser)
        return parser

    def fill(self, parser: ArgumentParser, description: Callable[[str], str] = str) -> None:
        """Add the arguments of this command to a parser, their help as `description` returns it."""
        for flag, options in (*self.arguments, _DEBUG):
            parser.add_argument(flag, **options | {"help": description(options["help"])})
        if self.takes_recipe_keys:
            _add_recipe_keys(parser, description)


def parse(command: Entry, name: str, words: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """Parse the words after a command.

    Returns:
        The options of the command, and dotted path → value of the recipe keys that flags replace.

    Raises:
        RecipeError: A flag does not exist or does not take its value.
    """
    parser = command.parser(f"understudy {name}")
    rest, entries = (
        _split_entries(bracketed(words)) if command.takes_recipe_keys else (list(words), {})
    )
    try:
        options, unknown = parser.parse_known_args(rest)
    except ArgumentError as error:
        argument = f"{error.argument_name}: " if error.argument_name else ""
        parser.error(f"{argument}{error.message}")
    if unknown:
        _refuse(unknown, parser)
    for name in _PLACES:
        places = getattr(options, name, None)
        for place in [places] if isinstance(places, str) else places or ():
            refuse_address(place, f"--{name}" if name in _WRITTEN else name.upper())
    keys = {path for path, _, _ in leaves(Recipe)} - {"methods", "teachers"}
    return options, {key: x for key, x in vars(options).items() if key in keys} | entries


@final
class OneOf:
    """Type for `add_argument` that takes one of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, text: str) -> str:
        """Return the name.

        Raises:
            RecipeError: It is none of them.
        """
        if text not in self.names:
            known = ", ".join(self.names)
            near = suggestion(text, self.names)
            raise RecipeError(f"{text!r} is not in the list{near}. There are: {known}.")
        return text


def whole_number(flag: str) -> Callable[[str], int]:
    """Return a type for `add_argument` that takes a whole number for `flag`."""

    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError as error:
            raise RecipeError(f"{flag} cannot be {text!r}; give a whole number.") from error

    return read


def number(flag: str) -> Callable[[str], float]:
    """Return a type for `add_argument` that takes a number for `flag`."""

    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise RecipeError(f"{flag} cannot be {text!r}; give a number, such as 0.5.") from error

    return read


def _refuse(unknown: Sequence[str], parser: ArgumentParser) -> NoReturn:
    flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    if not flags:
        parser.error(f"Unrecognized arguments: {' '.join(unknown)}")
    known = [name for action in parser._actions for name in action.option_strings]
    named = f"{flags[0]}.name"
    near = suggestion(flags[0], [named] if named in known else known)
    parser.error(f"There is no flag {flags[0]}{near}")


def _positional(name: str, options: Mapping[str, Any]) -> str:
    """Return a positional argument as the line of usage shows it."""
    forms = {"?": f"[{name.upper()}]", "+": f"{name.upper()} ..."}
    return forms.get(options.get("nargs", ""), name.upper())


def _add_recipe_keys(parser: ArgumentParser, description: Callable[[str], str]) -> None:
    help_of, groups = documentation(Recipe), {}
    for path, hint, default in leaves(Recipe):
        section = path.rpartition(".")[0]
        if section not in groups:
            title = f"keys of the recipe: {section}" if section else "keys of the recipe"
            groups[section] = parser.add_argument_group(title, help_of.get(section))
        if path == "methods":
            groups[section].description = "--methods.LABEL.KEY VALUE: see `understudy show METHOD`."
            continue
        if path == "teachers":
            use = "--teachers.NAME.KEY VALUE, with the keys of a teacher, methods and bank."
            groups[section].description = f"{groups[section].description} {use}"
            continue
        value = as_text(default) if isinstance(default, tuple) else default
        notes = [limits(hint), "" if value in (None, "", {}) else f"default: {value}"]
        suffix = f" ({'; '.join(filter(None, notes))})" if any(notes) else ""
        groups[section].add_argument(
            f"--{path}",
            type=_recipe_value(path, hint),
            default=SUPPRESS,
            help=description(f"{help_of[path]}{suffix}".replace("%", "%%")),
            metavar=_metavar(path, hint),
        )


def _recipe_value(path: str, hint: Any) -> Callable[[str], Any]:
    """Return a type for `add_argument` that reads a recipe key: text as it is, the rest as YAML."""
    is_text = bare(hint) is str or get_origin(bare(hint)) is Literal

    def read(text: str) -> Any:
        return convert(hint, text if is_text else _from_yaml(text), path)

    return read


def _from_yaml(text: str) -> Any:
    """Return the value of a text in YAML; the text itself if it is none, which no type takes."""
    try:
        value = from_yaml(text)
    except yaml.YAMLError:
        return text
    # YAML takes `{width:3}`, without a space, for a key `width:3` without a value.
    glued = isinstance(value, dict) and any(":" in str(key) for key in value)
    return text if glued else value


def _metavar(path: str, hint: Any) -> str:
    if get_origin(bare(hint)) is Literal:
        names = [AUTO] * may_be_auto(hint) + list(get_args(bare(hint)))
        return f"{{{','.join(names)}}}"
    return f"{path.rpartition('.')[2].upper()}{' ...' * is_list(hint)}"


def _split_entries(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the flags of single entries, such as `--methods.LABEL.KEY VALUE`, out of the words."""
    rest: list[str] = []
    entries: dict[str, Any] = {}
    queue = iter(words)
    for word in queue:
        if not word.startswith(tuple(f"--{group}." for group in _GROUPS)):
            rest.append(word)
            continue
        path, equals, value = word[2:].partition("=")
        value = value if equals else next(queue, "")
        if not value or value.startswith("--"):
            raise RecipeError(f"--{path} needs a value, such as --{path} 2.")
        entries[path] = _from_yaml(value)
    return rest, entries
