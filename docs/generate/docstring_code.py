"""Code in docstrings as fenced blocks, which Markdown would take for quotations and prose."""

import re
from typing import Any

from griffe import Extension, Object

DOCTEST = re.compile(r"(?m)^(?P<indent> *)>>> .*\n?(?:^(?P=indent)\S.*\n?)*")
EXAMPLE = re.compile(r"(?m)^Example:\n(?P<code>(?:(?: {4}.*)?\n?)+?)(?=^\S|\Z)")


class DocstringCode(Extension):
    """Fences doctests and the code under `Example:`."""

    def on_object(self, *, obj: Object, **words: Any) -> None:
        """Change the docstring of a module, class or function before it is parsed."""
        if obj.docstring is not None:
            text = EXAMPLE.sub(_example, obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(_doctest, text)


def _doctest(match: re.Match[str]) -> str:
    indent = match["indent"]
    return f"{indent}```pycon\n{match[0].rstrip()}\n{indent}```\n"


def _example(match: re.Match[str]) -> str:
    return f"**Example**\n\n{_fenced(match['code'])}\n"


def _fenced(code: str) -> str:
    lines = [line.removeprefix("    ") for line in code.strip("\n").splitlines()]
    language = "pycon" if lines[0].startswith(">>>") else "python"
    # An indented doctest would be fenced a second time.
    body = "\n".join(lines)
    return f"```{language}\n{body}\n```" if language == "python" else body
