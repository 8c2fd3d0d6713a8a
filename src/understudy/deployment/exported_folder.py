"""The folder of an exported student: its name in a run, and what `export.json` in it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.config.json_form import Form
from understudy.deployment.speed.latency import SPEEDS
from understudy.experiment.run_directory import read_json

FOLDER = "export"
"""Folder of a run that an export goes to, where none is named."""
FILE = "export.json"
"""File of an exported folder that holds what was verified and measured."""
ONNX, INT8, PROGRAM = "student.onnx", "student_int8.onnx", "student.pt2"
"""Names of the files that hold a graph."""
WEIGHTS = ("student.safetensors", "model.safetensors")
"""Names of the file of weights, the one to be taken first."""
_PARITY: Form = {
    "images": int,
    "difference": float,
    "largest": float,
    "decisions": int,
    "changed": int,
    "sentence": str,
}
_FORM: Form = {
    "files": {str: str},
    "parity": {str: _PARITY},
    "int8": ({"sentence": str}, None),
    "speeds": (SPEEDS, None),
    "pipeline?": ({"sentence": str}, None),
    "takes?": str,
}


def prepared_by_graph(content: Mapping[str, Any]) -> str:
    """Say what changes where the graph prepares pictures; empty where it does not.

    Args:
        content: Content of `export.json`.
    """
    pipeline = content.get("pipeline")
    if not pipeline:
        return ""
    return (
        "Pictures prepared by the graph, which never rounds values after resizing, beside the "
        f"same pictures prepared as in the run: {pipeline['sentence']}."
    )


def read_export(folder: Path) -> dict[str, Any]:
    """Return the content of the `export.json` of a folder; empty without one.

    Raises:
        RunError: The file is damaged.
    """
    return read_json(folder / FILE, _FORM, optional=True, remedy="export again")


def earlier_files(folder: Path) -> list[str]:
    """Return graphs and weights in a folder that its last export did not write.

    They may be of another student or of other options than its `config.json` and its card.

    Raises:
        RunError: `export.json` is damaged.
    """
    written = read_export(folder).get("files")
    if written is None:
        return []
    others = [name for name in (ONNX, INT8, PROGRAM, *WEIGHTS) if name not in written.values()]
    return [name for name in others if (folder / name).is_file()]
