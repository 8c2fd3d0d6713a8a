"""Execute a recipe, and read back what was executed.

A run directory holds

    recipe.yaml           the recipe, every key written out
    environment.json      machine, versions, class names, images left out
    metrics.jsonl         one line per epoch: losses, metrics and fidelity
    last/state.ckpt       everything needed to continue exactly; previous.ckpt is the one before
    best/student.safetensors    the plain student of the epoch with the best headline metric
    student.safetensors   the plain student of the last epoch; loads without Understudy
    evaluation.json       metrics, per-class accuracy, fidelity and cost of that student
    report.html           written by `understudy report`

Every file is replaced in one step, so a crash leaves the old or the new one, never half of it.
"""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save

from understudy import build, machine, storage
from understudy import recipe as recipes
from understudy.engine import Epoch, Trainer
from understudy.errors import Interrupted, RecipeError, RunError
from understudy.evaluation import Evaluation, Outputs, collect, evaluate
from understudy.models.network import Network
from understudy.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """An executed recipe on disk."""

    path: Path

    @property
    def recipe(self) -> Recipe:
        """The recipe that was executed."""
        if not (self.path / "recipe.yaml").is_file():
            raise RunError(f"{self.path} is no run directory: it has no recipe.yaml.")
        return recipes.load(self.path / "recipe.yaml")

    @property
    def finished(self) -> bool:
        """Whether training reached its last epoch."""
        return (self.path / "evaluation.json").is_file()

    @property
    def evaluation(self) -> dict[str, Any]:
        """Metrics, per-class accuracy, fidelity and cost of the trained student."""
        if not self.finished:
            raise RunError(f"{self.path} is not finished; continue it with --resume.")
        content: dict[str, Any] = json.loads((self.path / "evaluation.json").read_text())
        return content

    @property
    def environment(self) -> dict[str, Any]:
        """Machine, versions, class names and the seconds that `prepare` took."""
        content: dict[str, Any] = json.loads((self.path / "environment.json").read_text())
        return content

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Watcher(Protocol):
    """Someone who is told how training goes."""

    def start(self, trainer: Trainer, name: str) -> None:
        """Training begins or continues."""

    def step(self, trainer: Trainer) -> None:
        """An optimizer step was done."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch was done and perhaps evaluated."""


def distill(recipe: Recipe, **options: Any) -> Run:
    """Train a student by the methods of a recipe; options as for `train`.

    Raises:
        RecipeError: The recipe names no method or no teacher.
    """
    if not recipe.methods or not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError(
            "Distilling needs a teacher and a method: give --teacher.name and --method, "
            "or use `understudy train` for a control."
        )
    return train(recipe, **options)


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Execute a recipe.

    Args:
        recipe: What to train.
        out: Run directory; default `runs/<recipe.name>`.
        resume: Continue an interrupted run exactly where it was saved.
        device: `cpu`, or None for the best device there is.
        watcher: Told about progress.

    Raises:
        RunError: The directory holds another run, or the disk is full.
        Diverged: A loss became NaN or infinite; the last good state is kept.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.
    """
    run = Run(Path(out) if out else Path("runs") / recipe.name)
    if resume and run.finished:
        return run
    _claim(run, recipe, resume=resume)
    return _Execution(run, recipe, resume=resume, device=device, watcher=watcher).finish()


def _claim(run: Run, recipe: Recipe, *, resume: bool) -> None:
    """Refuse to mix two runs in one directory."""
    if not (run.path / "recipe.yaml").exists():
        return
    if not resume:
        raise RunError(
            f"{run.path} already holds a run: continue it with --resume, or choose another --out."
        )
    if run.recipe.digest != recipe.digest:
        raise RunError(
            f"{run.path} was made by another recipe ({_difference(run.recipe, recipe)}); "
            "choose another --out."
        )


def _difference(old: Recipe, new: Recipe) -> str:
    before, after = recipes.flat(old), recipes.flat(new)
    return ", ".join(
        f"{key}: {before.get(key)} there, {after.get(key)} here"
        for key in before | after
        if before.get(key) != after.get(key) and key not in recipes.NOT_IN_DIGEST
    )


class _Execution:
    """One execution of one recipe: built at once, then driven by `finish`."""

    def __init__(
        self, run: Run, recipe: Recipe, *, resume: bool, device: str | None, watcher: Watcher | None
    ) -> None:
        self.run, self.recipe, self.watcher = run, recipe, watcher
        self.accelerator = _accelerator(recipe, run.path, device)
        self.experiment = build.experiment(
            recipe, rank=self.accelerator.process_index, world=self.accelerator.num_processes
        )
        self.experiment.distiller.to(self.accelerator.device)
        state = self._saved() if resume else None
        if state is None:
            self._write("recipe.yaml", recipes.dump(recipe))
            started = time.monotonic()
            self.experiment.prepare()
            environment = self._environment() | {"prepare_seconds": time.monotonic() - started}
            self._write("environment.json", json.dumps(environment, indent=1))
        self.trainer = Trainer(
            self.experiment.distiller,
            self.experiment.train,
            recipe.training,
            seed=recipe.seed,
            accelerator=self.accelerator,
        )
        self.records: list[dict[str, Any]] = []
        if state is not None:
            self.trainer.load_state_dict(state)
            self.records = run.epochs()[: self.trainer.position.epoch]
        self._teacher_outputs: Outputs | None = None
        self._saved_at = time.monotonic()

    def finish(self) -> Run:
        """Train to the end, evaluate and save the student."""
        if self.recipe.training.trackers:
            self.accelerator.init_trackers(self.recipe.name, config=recipes.flat(self.recipe))
        if self.watcher:
            self.watcher.start(self.trainer, self.recipe.name)
        with _signals() as received:
            for epoch in self.trainer.fit(lambda: self._after_step(received)):
                self._record(epoch)
        self.accelerator.end_training()
        evaluation = self._evaluate()
        self._write("evaluation.json", json.dumps(self._summary(evaluation), indent=1))
        return self.run

    def _record(self, epoch: Epoch) -> None:
        every = self.recipe.training.evaluate_every
        due = epoch.number % every == 0 or epoch.number == self.recipe.training.epochs
        evaluation = self._evaluate() if due else None
        record = asdict(epoch) | {
            "epoch": epoch.number,
            "metrics": evaluation.metrics if evaluation else None,
            "fidelity": evaluation.fidelity if evaluation else None,
        }
        del record["number"]
        self.records.append(record)
        self._write("metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.records))
        if evaluation:
            self._keep_student(evaluation)
        self._save()
        self.accelerator.log(_flat_numbers(record), step=epoch.step)
        if self.watcher:
            self.watcher.epoch(record)

    def _evaluate(self) -> Evaluation:
        """The student as it is now, on the test images; the teacher's side is computed once."""
        test, teacher = self.experiment.test, self.experiment.teacher
        if teacher is not None and self._teacher_outputs is None:
            self._teacher_outputs = collect(teacher, test.once(augmented=False), self.accelerator)
        student = collect(self.trainer.student, test.once(augmented=False), self.accelerator)
        return evaluate(student, self._teacher_outputs, self.experiment.task)

    def _keep_student(self, evaluation: Evaluation) -> None:
        content = self._student_file(self.trainer.student)
        self._write("student.safetensors", content)
        headline = self.experiment.task.headline
        scores = [_score(r, headline) for r in self.records if r["metrics"] is not None]
        if scores[-1] >= max(scores):
            self._write("best/student.safetensors", content)

    def _student_file(self, student: Network) -> bytes:
        state = {k: v.detach().cpu().contiguous() for k, v in student.plain().state_dict().items()}
        return save(state, metadata={"classes": json.dumps(self.experiment.classes)})

    def _after_step(self, received: list[str]) -> None:
        if self.watcher:
            self.watcher.step(self.trainer)
        if self._anyone(bool(received)):
            self._save()
            raise Interrupted(
                f"Stopped by {received[0] if received else 'another process'} in epoch "
                f"{self.trainer.position.epoch + 1}, step {self.trainer.position.step}; everything is "
                f"saved in {self.run.path}: continue with --resume."
            )
        if time.monotonic() - self._saved_at > 60 * self.recipe.training.checkpoint_minutes:
            self._save()

    def _anyone(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all of them stop at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, reduction="sum") > 0)

    def _save(self) -> None:
        state = self.trainer.state_dict()
        if self.accelerator.is_main_process:
            storage.save_checkpoint(self.run.path / "last", state)
        self.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _saved(self) -> dict[str, Any] | None:
        """The state to continue from; None if the run stopped before anything was saved."""
        if not (self.run.path / "last").is_dir():
            return None
        return storage.load_checkpoint(self.run.path / "last")

    def _write(self, name: str, content: str | bytes) -> None:
        if self.accelerator.is_main_process:
            storage.write(self.run.path / name, content)

    def _environment(self) -> dict[str, Any]:
        return machine.describe() | {
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "precision": self.accelerator.mixed_precision,
            "classes": self.experiment.classes,
            "skipped": self.experiment.skipped,
        }

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        trained = self.experiment.distiller.trainable
        return asdict(evaluation) | {
            "teacher": self._teacher_summary(),
            "prepare_seconds": self.run.environment["prepare_seconds"],
            "classes": self.experiment.classes,
            "parameters": _count(self.trainer.student.plain()),
            "train_parameters": _count(trained),
            "seconds": sum(record["seconds"] for record in self.records),
            "memory_mb": machine.peak_memory_mb(self.accelerator.device),
        }


    def _teacher_summary(self) -> dict[str, Any] | None:
        """The teacher's own metrics on the test images."""
        if self._teacher_outputs is None or self.experiment.teacher is None:
            return None
        own = evaluate(self._teacher_outputs, None, self.experiment.task)
        return {
            "metrics": own.metrics,
            "per_class": own.per_class,
            "parameters": _count(self.experiment.teacher.module),
        }


def _accelerator(recipe: Recipe, path: Path, device: str | None) -> Accelerator:
    # Accelerate keeps one state per process for life; a second run may want another precision.
    AcceleratorState._reset_state()
    cpu = device == "cpu" or not torch.cuda.is_available()
    precision = recipe.training.precision
    if precision == "auto":
        precision = "bf16" if machine.has_bf16(cpu=cpu) else "fp32"
    return Accelerator(
        cpu=cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(recipe.training.trackers) or None,
        project_dir=path,
    )


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Names of the signals received meanwhile; a second SIGINT interrupts at once."""
    received: list[str] = []

    def remember(number: int, _: Any) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where Python allows no handlers
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _score(record: dict[str, Any], headline: str) -> float:
    values = (record["metrics"] or {}) | (record["fidelity"] or {})
    return float(values.get(headline) or 0.0)


def _flat_numbers(record: dict[str, Any]) -> dict[str, float]:
    flat = {}
    for key, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}/{k}".rstrip("/"): v for k, v in inner.items() if v is not None}
    return flat


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
