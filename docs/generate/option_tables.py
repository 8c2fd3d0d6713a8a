"""The page of the command line, from the help of every command."""

from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator

from page_text import cell

from understudy.cli.commands import COMMANDS

HEAD = """# Command line

Every command with its flags, as `understudy COMMAND --help` prints them. Commands that read a
recipe take every [key of a recipe](#keys-of-a-recipe) as a flag.

| command | what it does |
|---|---|
"""


def page() -> str:
    """Return the page: every command with its options, and the keys of a recipe once."""
    parsers = {name: entry.parser(f"understudy {name}") for name, entry in COMMANDS.items()}
    lines = [f"| [`{name}`](#{name}) | {entry.help} |" for name, entry in COMMANDS.items()]
    parts = [HEAD + "\n".join(lines)]
    for name, entry in COMMANDS.items():
        parts += [f"## {name}", entry.help, f"```text\n{_usage(parsers[name])}\n```"]
        parts.append(_table(_own(parsers[name])))
    parts += ["## Keys of a recipe", *_keys(parsers["distill"])]
    return "\n\n".join(parts) + "\n"


def _usage(parser: ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def _own(parser: ArgumentParser) -> Iterator[Action]:
    """Yield the arguments and flags of a command that are no keys of a recipe."""
    for group in parser._action_groups:
        if not (group.title or "").startswith("keys of the recipe"):
            yield from group._group_actions


def _keys(parser: ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        if (group.title or "").startswith("keys of the recipe"):
            section = (group.title or "").partition(": ")[2] or "the experiment"
            yield f"### {section}"
            yield group.description or ""
            if group._group_actions:
                yield _table(group._group_actions)


def _table(actions: Iterator[Action] | list[Action]) -> str:
    rows = [
        f"| {_name(action)} | {cell((action.help or '').replace('%%', '%'))} |"
        for action in actions
        if action.help != SUPPRESS
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _name(action: Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    return f"`{cell(', '.join(action.option_strings))}`"
