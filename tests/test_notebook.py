"""The Python interface in a script and in a notebook, where results show as tables."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.site.page_blocks import blocks
from tests.support.processes import Fresh

SCRIPT = """
import understudy

small = {"training": {"epochs": 1, "batch": 32}, "data.images": 100, "data.validation": 0.02}
teacher = understudy.train("fashion/teacher", small, out="runs/teacher", device="cpu")
small = {**small, "teacher.weights": str(teacher.path), "data.labels": 40}
run = understudy.distill("fashion/demo", small, out="runs/student", device="cpu", progress=True)
again = understudy.distill(
    {
        "data": {"images": 100, "validation": 0.02, "size": 16},
        "student": {"name": "resnet8", "size": 16},
        "teacher": {"weights": "runs/teacher"},
        "methods": {"kd": {"weight": 0.5}},
        "training": {"epochs": 1, "batch": 32},
    },
    out="runs/again",
    device="cpu",
)
classes = len(run.environment["classes"])
print("logits", run.student()(__import__("torch").rand(1, 3, 32, 32)).shape[1] == classes)
print("methods", *run.recipe.methods, "then", *again.recipe.methods)
"""
"""Two students, by a shipped recipe with overrides and by a dictionary."""


def own_loop() -> str:
    """The README's training loop of one's own."""
    (code,) = [block.code for block in blocks("README.md") if "understudy.wire(" in block.code]
    return code


def check(printed: str) -> None:
    """Fail unless the script trained both students."""
    assert "logits True" in printed
    assert "methods " in printed
    assert printed.strip().endswith("then kd")
    assert "demo: 1 epoch of " in printed
    assert "fashion_teacher" not in printed, "only one of the runs was to be printed"


def test_in_a_script(tmp_path: Path) -> None:
    strict = "import warnings\nwarnings.filterwarnings('error', '', UserWarning, 'understudy')\n"
    check(Fresh("-c", strict + own_loop() + SCRIPT, folder=tmp_path).finish())


MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_in_a_notebook(tmp_path: Path) -> None:
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    sources = [own_loop(), SCRIPT, "run", "run.to_frame()"]
    book = new_notebook(cells=[new_code_cell(source) for source in sources])
    NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    _, trained, run, frame = (cell.outputs for cell in book.cells)
    check("".join(x.text for x in trained if x.get("name") == "stdout"))
    assert "<td>finished</td>" in html(run)
    assert "losses.total" in html(frame)


def html(outputs: list[Any]) -> str:
    """The HTML that a cell shows as its value."""
    (result,) = [x for x in outputs if x.output_type == "execute_result"]
    return str(result.data["text/html"])
