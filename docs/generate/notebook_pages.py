"""Notebooks as pages: executed in a folder of their own, and written as Markdown with outputs."""

import html
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

SECONDS = 300
LONGEST = 30
"""Lines of text that an output shows; of a longer one the first and the last."""
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@cache
def rendered(paths: tuple[Path, ...]) -> list[str]:
    """Execute notebooks and return each as Markdown, with what its cells print and show.

    One process executes all, in one folder: to load torch takes longer than most cells. Names of
    one notebook are deleted before the next begins.
    """
    books = [nbformat.read(path, as_version=4) for path in paths]
    cells = [[*book.cells, new_code_cell("%reset -f")] for book in books]
    book = new_notebook(cells=[cell for part in cells for cell in part])
    with tempfile.TemporaryDirectory(prefix="notebook") as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    return ["\n\n".join(filter(None, map(_cell, part[:-1]))) + "\n" for part in cells]


def _cell(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return str(cell.source)
    shown = [f"```python\n{cell.source}\n```", *map(_output, cell.outputs)]
    return "\n\n".join(filter(None, shown))


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return _text(output.text) if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="output" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    """Return printed text as a block, without colours and without what was written over."""
    lines = [line.rpartition("\r")[2] for line in COLOURS.sub("", text).rstrip().split("\n")]
    if len(lines) > LONGEST:
        half = LONGEST // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
    body = html.escape("\n".join(lines))
    return f'<pre class="output">{body}</pre>' if body.strip() else ""
