"""Trials of a search: what each of them tries, kept in a file, and how far its run is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from understudy import files
from understudy.config.json_form import Form
from understudy.experiment.progress import value_of
from understudy.experiment.run_directory import Run, read_json

_TRIAL: Form = {
    "number": int,
    "candidate": str,
    "values": {str: float},
    "published": bool,
    "failed": str,
}
_FILE = "trial.json"


@final
@dataclass(frozen=True)
class Tried:
    """One trial: a run whose epochs are trained as far as the search wants.

    Attributes:
        number: Place in the order of the trials, from 0.
        candidate: Name of the method, or of several.
        values: Dotted path below `methods` → value that was chosen.
        published: Whether all values are the published ones.
        path: Run directory.
        failed: Why it cannot be trained; empty if it can.
    """

    number: int
    candidate: str
    values: Mapping[str, float]
    published: bool
    path: Path
    failed: str = ""

    @classmethod
    def read(cls, path: Path) -> "Tried | None":
        """Return the trial of a directory; None if none was begun there.

        Raises:
            RunError: The file is damaged.
        """
        if not (path / _FILE).is_file():
            return None
        content = read_json(path / _FILE, _TRIAL, remedy=f"delete {path} and search again")
        return cls(**content, path=path)

    def write(self) -> None:
        """Write the trial into its directory.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        files.write(self.path / _FILE, files.as_json(self.to_dict(), indent=1))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {key: getattr(self, key) for key in _TRIAL} | {"values": dict(self.values)}

    @property
    def run(self) -> Run:
        """Its run."""
        return Run(self.path)

    @property
    def epochs(self) -> int:
        """Epochs that are trained."""
        records = self.run.history
        return int(records[-1]["epoch"]) if records else 0

    @property
    def seconds(self) -> float:
        """Seconds that its epochs took."""
        return float(sum(record["seconds"] for record in self.run.history))

    def value(self, epoch: int, metric: str) -> float | None:
        """Return the metric on the validation images after an epoch; None if it is not known."""
        for record in self.run.history:
            if record["epoch"] == epoch and record["split"] == "validation":
                return value_of(record, metric)
        return None

    def text(self) -> str:
        """Return what is tried, such as `kd, weight 3.2, temperature 2`."""
        if self.published:
            return f"{self.candidate} as published"
        one = "+" not in self.candidate
        parts = [
            f"{path.rpartition('.')[2] if one else path} {value:g}"
            for path, value in self.values.items()
        ]
        return ", ".join([self.candidate, *parts])
