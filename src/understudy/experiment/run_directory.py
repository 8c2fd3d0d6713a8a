"""A run directory: what it holds, and the one class that reads it. Imports no torch.

A run directory holds

    recipe.yaml           the recipe, every key written out
    environment.json      machine, versions, class names, images left out, digests of the data
    metrics.jsonl         one line per epoch: losses, metrics and fidelity
    last/state.ckpt       everything needed to continue exactly; previous.ckpt is the one before
    best/student.safetensors    the plain student of the epoch with the best headline metric
    student.safetensors   the plain student of the last epoch; loads without Understudy
    evaluation.json       metrics, per-class accuracy, fidelity and cost of that student
    diagnostics.json      data for the report's charts; single-label runs need a teacher for it
    outcomes.json         what single test images contribute to the headline metric
    diverged.txt          instead of the three above, if a loss became NaN or infinite: which
    profile.json          written by `--profile`: a trace of some steps, in Chrome's format
    report.html           written by `understudy report`

Every file is replaced in one step, so a crash leaves the old or the new one, never half of it.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from understudy.config.recipe import Recipe
from understudy.errors import RunError


@dataclass(frozen=True)
class Run:
    """A run on disk. Attributes read its files when asked, so they follow a run in progress."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in a directory.

        Raises:
            RunError: The directory is missing, or no epoch of a run was recorded in it.
        """
        run = cls(Path(path))
        if not (run.path / "metrics.jsonl").is_file():
            what = "holds no metrics.jsonl" if run.path.is_dir() else "does not exist"
            raise RunError(
                f"There is no run at {run.path}: it {what}. Name a directory written by "
                "'understudy train', 'distill' or 'compare'."
            )
        return run

    @property
    def recipe(self) -> Recipe:
        """The recipe that was executed."""
        if not self.begun:
            raise RunError(f"{self.path} is no run directory: it has no recipe.yaml.")
        return Recipe.load(self.path / "recipe.yaml")

    @property
    def recipe_text(self) -> str:
        """The recipe as YAML, as it is written in the directory; empty if the file is missing."""
        file = self.path / "recipe.yaml"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @property
    def begun(self) -> bool:
        """True if the directory holds a run, finished or not."""
        return (self.path / "recipe.yaml").is_file()

    @property
    def diverged(self) -> str:
        """Why training diverged; empty if it did not."""
        file = self.path / "diverged.txt"
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    @property
    def finished(self) -> bool:
        """True if training reached its last epoch."""
        return (self.path / "evaluation.json").is_file()

    @property
    def evaluation(self) -> dict[str, Any]:
        """Metrics, per-class accuracy, fidelity and cost of the trained student.

        Raises:
            RunError: The run is not finished, or the file is damaged.
        """
        if not self.finished:
            raise RunError(f"{self.path} is not finished; continue it with --resume.")
        return read_json(self.path / "evaluation.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, class names, digests and the seconds that `prepare` took.

        Raises:
            RunError: The file is missing or damaged.
        """
        return read_json(self.path / "environment.json")

    @property
    def outcomes(self) -> dict[str, Any]:
        """What single test images contribute to the headline metric; empty where not recorded."""
        return read_json(self.path / "outcomes.json", optional=True)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Data for the report's charts; empty where nothing was measured."""
        return read_json(self.path / "diagnostics.json", optional=True)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per epoch; a last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        return _lines(file, _stamp(file)) if file.is_file() else []

    @property
    def seconds(self) -> float:
        """Seconds of `prepare` and of all epochs, without interruptions between them."""
        return float(self.environment["prepare_seconds"] + sum(e["seconds"] for e in self.history))


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The content of a JSON file; empty if it is optional and missing.

    Raises:
        RunError: The file is missing or not JSON.
    """
    if not path.is_file():
        if optional:
            return {}
        raise RunError(f"{path} is missing; start again in another --out.")
    return _json(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    """Changes whenever the file is replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _json(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is damaged, it is not JSON ({error}); start again in another --out."
        ) from error
    return content


@lru_cache(maxsize=256)
def _lines(path: Path, stamp: tuple[int, int]) -> list[dict[str, Any]]:
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
