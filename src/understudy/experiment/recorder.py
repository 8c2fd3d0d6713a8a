"""Writes a run directory while a run trains; what its files hold is said in `run_directory`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from accelerate import Accelerator
from safetensors.torch import save

from understudy import files
from understudy.config.recipe import Recipe
from understudy.errors import Diverged, RunError
from understudy.experiment.run_directory import Run
from understudy.experiment.student_file.config import FILE, StudentConfig
from understudy.models.base import Wrapped
from understudy.tasks import Evaluation, Outcomes
from understudy.training.checkpoint import load_checkpoint, save_checkpoint


@final
class Recorder:
    """Writes the files of one run directory, from the main process alone.

    Args:
        path: Run directory.
        accelerator: Tells which process is the main one.

    Attributes:
        records: One record for every epoch so far, as in `metrics.jsonl`.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self._accelerator = path, accelerator
        self.records: list[dict[str, Any]] = []
        self._place: tuple[int, int] | None = None

    @property
    def environment(self) -> dict[str, Any]:
        """Content of `environment.json`: what the run began with."""
        return Run(self.path).environment

    def saved_state(self) -> dict[str, Any] | None:
        """Return the state to continue from; None if the run stopped before any was saved."""
        # A run may have stopped between making the folder and writing the first state into it.
        return load_checkpoint(self.path / "last")

    def check_same(self, digests: dict[str, str]) -> None:
        """Refuse to continue with other images or another teacher than the run began with.

        Raises:
            RunError: A digest is not the one in `environment.json`.
        """
        before = self.environment["digests"]
        for what in dict.fromkeys([*digests, *before]):
            then, now = before.get(what, "none"), digests.get(what, "none")
            if then != now:
                raise RunError(
                    f"The {what} changed since {self.path} began ({then} then, {now} now); put "
                    "back what was there, or start again in another --out."
                )

    def continue_from(self, epoch: int) -> None:
        """Keep the records of the epochs before a saved state: later ones are run again."""
        self.records = Run(self.path).trained[:epoch]
        self._place = _identity(self.path)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write `recipe.yaml`, from which on the directory holds a run."""
        self._write("recipe.yaml", recipe.to_yaml())

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Write `environment.json`."""
        self._write("environment.json", files.as_json(environment, indent=1))

    def add_skipped(self, lines: Sequence[str]) -> None:
        """Add images that were found faulty while training to those in `environment.json`."""
        environment = self.environment
        skipped = dict.fromkeys([*environment.get("skipped", ()), *lines])
        self.write_environment(environment | {"skipped": list(skipped)})

    def write_epoch(self, record: dict[str, Any]) -> None:
        """Add the record of an epoch to `metrics.jsonl`."""
        self.records.append(record)
        self._write("metrics.jsonl", "".join(files.as_json(r) + "\n" for r in self.records))

    def write_no_epochs(self) -> None:
        """Write an empty `metrics.jsonl`, of a student that is measured without being trained."""
        self._write("metrics.jsonl", "")

    def is_best(self, evaluation: Evaluation, headline: str) -> bool:
        """Return True if no recorded epoch has a higher headline metric than an evaluation."""
        measured = [record for record in self.records if record["metrics"] is not None]
        earlier = [_score(record["metrics"], record["fidelity"], headline) for record in measured]
        score = _score(evaluation.metrics, evaluation.fidelity, headline)
        return score >= max(earlier, default=-math.inf)

    def write_student(self, student: Wrapped, classes: tuple[str, ...], *, best: bool) -> None:
        """Write the student of the last recorded epoch.

        Args:
            student: Network to write, in its plain form.
            classes: Names of its classes.
            best: Write it as the best one too.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in student.plain().state_dict().items()}
        content = bytes(save(state, metadata={"classes": files.as_json(classes)}))
        self._write("student.safetensors", content)
        if best:
            self._write("best/student.safetensors", content)

    def write_state(self, state: dict[str, Any]) -> None:
        """Save everything that is needed to continue, and wait for all processes."""
        if self._accelerator.is_main_process:
            self._check_place()
            save_checkpoint(self.path / "last", state)
        self._accelerator.wait_for_everyone()

    def write_diagnostics(self, diagnostics: dict[str, Any]) -> None:
        """Write `diagnostics.json`, if there is anything to draw."""
        if diagnostics:
            self._write("diagnostics.json", files.as_json(diagnostics))

    def write_outcomes(self, outcomes: Outcomes | None) -> None:
        """Write `outcomes.json`, unless there are none."""
        if outcomes:
            self._write("outcomes.json", files.as_json(asdict(outcomes)))

    def write_evaluation(self, summary: dict[str, Any]) -> None:
        """Write `evaluation.json`, from which on the run is finished."""
        self._write("evaluation.json", files.as_json(summary, indent=1))

    def write_config(self, config: StudentConfig, *, best: bool = False) -> None:
        """Write `config.json` beside the last student, or beside the best one."""
        self._write(f"best/{FILE}" if best else FILE, config.to_json())

    def write_diverged(self, error: Diverged) -> None:
        """Write why the run ended before its last epoch."""
        self._write("diverged.txt", f"{error}\n")

    def _write(self, name: str, content: str | bytes) -> None:
        if self._accelerator.is_main_process:
            self._check_place()
            files.write(self.path / name, content)

    def _check_place(self) -> None:
        """Refuse to go on writing if the directory is no longer that of the first write.

        Raises:
            RunError: It was deleted or moved.
        """
        if self._place is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self._place = _identity(self.path)
        if self._place is None or _identity(self.path) != self._place:
            raise RunError(
                f"{self.path} was deleted or moved while this run was writing it, so that nothing "
                "more can be saved: start again, or move the directory back and continue with "
                "--resume."
            )


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a directory from a later one of the same name; None if it is gone."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _score(
    metrics: Mapping[str, float] | None, fidelity: Mapping[str, float | None] | None, headline: str
) -> float:
    return float({**(metrics or {}), **(fidelity or {})}.get(headline) or 0.0)
