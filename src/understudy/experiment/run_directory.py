"""A run directory: what it holds, and the one class that reads it. Imports no torch.

A run directory holds

    recipe.yaml           the recipe, every key written out
    environment.json      machine, versions, class names, size of the views, what each split is,
                          images left out, digests of the data
    metrics.jsonl         one line per epoch: losses, and metrics and fidelity on the split it names
    last/state.ckpt       everything needed to continue exactly; previous.ckpt is the one before
    best/student.safetensors    the plain student of the epoch with the best headline metric on the
                          validation images, or as `training.best` says; missing if none chose it
    student.safetensors   the plain student of the last epoch; loads without Understudy
    config.json           how that student is built, and how pictures are prepared for it; timm's
                          own configuration too; written at the end, also in best/
    evaluation.json       metrics, per-class accuracy, fidelity and cost of that student, and the
                          metrics of the best one, on the test images
    diagnostics.json      data for the report's charts; single-label runs need a teacher for it
    outcomes.json         what single test images contribute to the headline metric
    diverged.txt          instead of the three above, if a loss became NaN or infinite: which
    profile.json          written by `--profile`: a trace of some steps, in Chrome's format
    doctor.json           what the command line found before training; see `checks.examine`
    report.html           written by `understudy report`

Every file is replaced in one step, so a crash leaves the old or the new one, never half of it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.json_form import Form, check_form, parse_json
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment import plain_table
from understudy.experiment.run_forms import (
    BEGUN,
    DIAGNOSTICS,
    ENVIRONMENT,
    EPOCH,
    EVALUATION,
    OUTCOMES,
    TRAINED,
)
from understudy.experiment.student_file.config import StudentConfig
from understudy.experiment.student_file.loading_lines import LoadingLines, loading_lines

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

_REMEDY = "start again in another --out"


@dataclass(frozen=True, repr=False)
class Run:
    """A run on disk: one recipe, executed once.

    `train` and `distill` return it and `Run.open` reads one from a directory. Every attribute reads
    its file when asked, so it follows a run in progress. A run stands for its directory wherever a
    path is expected: `understudy.report(run)`.
    """

    path: Path
    """Run directory; text becomes a path."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    def open(cls, path: "str | Path | Run") -> "Run":
        """Return the run in a directory.

        Args:
            path: Run directory, written by `understudy train`, `distill` or `compare`.

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

    def student(self, *, trust: bool = False) -> "nn.Module":
        """Return the trained student: a plain torch module in evaluation mode, on the CPU.

        It has the weights of the last epoch and needs nothing of Understudy. It takes normalised
        images, as the network the recipe names does; a detector normalises for itself.

        Args:
            trust: Execute the Python file that the run names for its network, if it does.

        Raises:
            RunError: There is no student in the directory yet.
            NetworkError: The network cannot be built, the weights do not fit, or the run names a
                Python file and is not trusted.
        """
        from understudy.experiment.evaluate import load_student  # loads torch

        return load_student(self, trust=trust)

    @property
    def config(self) -> StudentConfig:
        """How the student is built, prepared and measured.

        Raises:
            RunError: The run is not finished, or the file is damaged.
        """
        return StudentConfig.read(self.path)

    @property
    def loading_lines(self) -> LoadingLines:
        """Lines of Python that load the student in a program of one's own, from any folder.

        `print(…)` them.

        Raises:
            RunError: The run is not finished, or a file is damaged.
        """
        return loading_lines(self.config, self.path.absolute())

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row per epoch.

        Groups of `history` become dotted columns, such as `losses.total` and `metrics.top1`.

        Raises:
            UnderstudyError: pandas is not installed.
        """
        return plain_table.frame([dict(_flat(record)) for record in self.history])

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r}: {', '.join([self._status(), *self._headline()])}>"

    def _repr_html_(self) -> str:
        measured = self.evaluation if self.finished else {"metrics": {}, "fidelity": {}}
        values = {**(measured["metrics"] or {}), **(measured["fidelity"] or {})}
        rows = [[key, f"{value:.4g}"] for key, value in values.items() if value is not None]
        return plain_table.html(
            [["run", str(self.path)], ["status", self._status()], *rows], caption=self._name()
        )

    def _name(self) -> str:
        return self.recipe.name if self.begun else ""

    def _status(self) -> str:
        if self.finished:
            return "finished"
        if self.diverged:
            return "diverged"
        if not self.begun:
            return "not begun"
        epoch = self.history[-1]["epoch"] if self.history else 0
        return f"epoch {epoch} of {self.recipe.training.epochs}"

    def _headline(self) -> list[str]:
        """The metric that ranks students, in words; empty before it was measured."""
        from understudy import tasks  # loads torch

        measured = self.evaluation if self.finished else next(iter(self.history[::-1]), {})
        values = {**(measured.get("metrics") or {}), **(measured.get("fidelity") or {})}
        if not values:
            return []
        task = tasks.find(self.recipe.task)
        metric = task.judged_by(measured["metrics"]) if self.finished else task.headline
        return [f"{metric} {values[metric]:.4g}"] if values.get(metric) is not None else []

    @property
    def recipe(self) -> Recipe:
        """The recipe that was executed."""
        if not self.begun:
            raise RunError(f"{self.path} is no run directory: it has no recipe.yaml.")
        return Recipe.of_run(self.path / "recipe.yaml")

    @property
    def recipe_text(self) -> str:
        """The recipe as YAML, as it is written in the directory; empty if the file is missing."""
        file = self.path / "recipe.yaml"
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    @property
    def begun(self) -> bool:
        """True if the directory holds a run, finished or not."""
        return (self.path / "recipe.yaml").is_file()

    @property
    def diverged(self) -> str:
        """Why training diverged; empty if it did not."""
        file = self.path / "diverged.txt"
        return file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""

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
        return read_json(self.path / "evaluation.json", EVALUATION)

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, class names, digests and the seconds that `prepare` took.

        Raises:
            RunError: The file is missing or damaged.
        """
        return read_json(self.path / "environment.json", BEGUN)

    @property
    def splits(self) -> dict[str, Any]:
        """Number and origin of the images of each split; empty where not recorded."""
        return self._recorded.get("splits") or {}

    @property
    def trained_on(self) -> str:
        """Digest of the images that the student was trained on; empty if it is not recorded."""
        return str(self._recorded.get("digests", {}).get("training images", ""))

    @property
    def measured_on(self) -> str:
        """Digest of the images that measured the student; empty if it is not recorded."""
        return str(self._recorded.get("digests", {}).get("test images", ""))

    @property
    def threads(self) -> int | None:
        """Threads of the CPU that the run began with; None if it did not or was not recorded."""
        count = self._recorded.get("threads")
        return int(count) if count else None

    @property
    def channels_last(self) -> bool:
        """Whether the run computes in channels last; False where not recorded."""
        return bool(self._recorded.get("channels_last"))

    @property
    def _recorded(self) -> dict[str, Any]:
        """What `environment.json` holds, which earlier versions wrote in part; empty without it."""
        return read_json(self.path / "environment.json", ENVIRONMENT, optional=True)

    @property
    def outcomes(self) -> dict[str, Any]:
        """What single test images contribute to the headline metric; empty where not recorded."""
        return read_json(self.path / "outcomes.json", OUTCOMES, optional=True)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Data for the report's charts; empty where nothing was measured."""
        return read_json(self.path / "diagnostics.json", DIAGNOSTICS, optional=True)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per epoch; a last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        return _lines(file, _stamp(file)) if file.is_file() else []

    @property
    def trained(self) -> list[dict[str, Any]]:
        """The same records, with all that a run needs to go on from them.

        Raises:
            RunError: A record is damaged.
        """
        records = self.history
        check_form(records, TRAINED, self.path / "metrics.jsonl", remedy=_REMEDY)
        return records

    @property
    def seconds(self) -> float:
        """Seconds of `prepare` and of all epochs, without interruptions between them."""
        seconds = sum(record["seconds"] for record in self.trained)
        return float(self.environment["prepare_seconds"] + seconds)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_json(
    path: Path, form: Form, *, optional: bool = False, remedy: str = _REMEDY
) -> dict[str, Any]:
    """Return the content of a JSON file of a run; empty if it is optional and missing.

    Args:
        path: The file.
        form: The form it must have; see `config.json_form`.
        optional: The file may be missing.
        remedy: What to do about a damaged file, for the error.

    Raises:
        RunError: The file is missing, not JSON, or of another form.
    """
    if not path.is_file():
        if optional:
            return {}
        raise RunError(f"{path} is missing; {remedy}.")
    content: dict[str, Any] = _json(path, _stamp(path), remedy)
    check_form(content, form, path, remedy=remedy)
    return content


def refuse_without(file: Path, missing: str, advice: str) -> None:
    """Refuse a directory without the file that makes it what it should be.

    Args:
        file: The file.
        missing: What there is not, such as `is no search`.
        advice: What to name instead, such as `a directory written by 'understudy tune'`.

    Raises:
        RunError: The file or its directory is missing.
    """
    if not file.is_file():
        folder = file.parent
        why = f"it has no {file.name}" if folder.is_dir() else "it does not exist"
        raise RunError(f"There {missing} at {folder}: {why}. Name {advice}.")


def _stamp(path: Path) -> tuple[int, int]:
    """Changes whenever the file is replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _json(path: Path, stamp: tuple[int, int], remedy: str) -> Any:
    return parse_json(path, remedy=remedy)


@lru_cache(maxsize=256)
def _lines(path: Path, stamp: tuple[int, int]) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise RunError(
                    f"Line {number} of {path} is no record of an epoch: {error}; "
                    "remove that line, or train again."
                ) from error
    for number, record in enumerate(records, 1):
        remedy = "remove that line, or train again"
        check_form(record, EPOCH, f"Line {number} of {path}", remedy=remedy)
    return records
