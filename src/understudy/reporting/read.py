"""What a run directory holds, as it was written."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.errors import RunError


@dataclass(frozen=True)
class Run:
    """What one run directory holds."""

    path: Path
    recipe: str
    epochs: list[dict[str, Any]]
    evaluation: dict[str, Any]
    environment: dict[str, Any]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    """What pictures of direction and norm are drawn from; empty where nothing was measured."""


def read_run(path: Path) -> Run:
    """One run directory; `evaluation.json` is missing until the run has ended.

    Raises:
        RunError: The directory or its `metrics.jsonl` is missing or damaged.
    """
    if not (path / "metrics.jsonl").is_file():
        what = "holds no metrics.jsonl" if path.is_dir() else "does not exist"
        raise RunError(
            f"There is no run at {path}: it {what}. Name a directory written by "
            "'understudy train', 'distill' or 'compare'."
        )
    recipe = path / "recipe.yaml"
    return Run(
        path,
        recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        _lines(path / "metrics.jsonl"),
        read_json(path / "evaluation.json", optional=True),
        read_json(path / "environment.json", optional=True),
        read_json(path / "diagnostics.json", optional=True),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """One record for each epoch; a last line cut short by a crash is left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise RunError(
                    f"Line {number} of {path} is no record of an epoch: {error}; "
                    "remove that line, or train again."
                ) from error
    return records


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The content of a JSON file; empty if it is optional and missing.

    Raises:
        RunError: The file is not JSON.
    """
    if optional and not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is not JSON: {error}; run or compare again.") from error
    return content
