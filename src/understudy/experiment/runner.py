"""One execution of a recipe: what is written when, and how it continues and stops."""

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, gather_object
from safetensors.torch import save

from understudy import diagnostics, files
from understudy.bank import Resident
from understudy.config import recipe as recipes
from understudy.config.recipe import Recipe
from understudy.errors import Diverged, Interrupted, RunError
from understudy.experiment import bank_attach, build
from understudy.experiment.build import Images
from understudy.experiment.callback import Callback
from understudy.experiment.evaluate import collect, comparable
from understudy.experiment.run_directory import Run
from understudy.models.base import Wrapped
from understudy.models.cost import layers_cost
from understudy.models.network import Network
from understudy.profiling import Profile
from understudy.tasks import Evaluation, Outputs
from understudy.training import hardware
from understudy.training.checkpoint import load_checkpoint, save_checkpoint
from understudy.training.devices import accelerator, choose, processes
from understudy.training.signals import signals
from understudy.training.trainer import Epoch, Trainer

LOGGER = logging.getLogger("understudy")


class Execution:
    """One execution of one recipe: built at once, then driven by `finish`."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        *,
        resume: bool,
        device: str | None,
        callback: Callback | None,
        profile: bool = False,
        images: Images | None = None,
    ) -> None:
        self.path, self.recipe = path, recipe
        here = processes(device)
        self._memory = hardware.PeakMemory(here.device)
        self.callback = callback if here.is_main_process else None
        self.experiment = build.experiment(
            recipe, rank=here.process_index, world=here.num_processes, images=images
        )
        distiller = self.experiment.distiller
        self.accelerator = accelerator(
            recipe.training,
            device,
            student=distiller.student,
            trackers=recipe.training.trackers,
            folder=path,
        )
        self.choices = choose(recipe.training, distiller, self.accelerator.device)
        # Before methods measure the teacher: what it gives them may be stored for training.
        self.choices.place(distiller)
        with self.accelerator.main_process_first():  # which makes the bank, if there is none
            self._replay = bank_attach.attach(self.experiment, recipe, self.choices.teacher_dtype)
            self._tested = bank_attach.tested(self.experiment, recipe)
        state = self._saved() if resume else None
        if state is None:
            self._begin()
        else:
            self._check_same()
        self.trainer = Trainer(
            distiller,
            self.experiment.train,
            recipe.training,
            seed=recipe.seed,
            accelerator=self.accelerator,
            resident=self._resident,
        )
        self._profile = (
            Profile(path / "profile.json") if profile and self.accelerator.is_main_process else None
        )
        self.records: list[dict[str, Any]] = []
        if state is not None:
            self.trainer.load_state_dict(state)
            # Epochs after the saved state are run again, and written again.
            self.records = Run(path).history[: self.trainer.position.epoch]
        self._teacher_outputs: Outputs | None = None
        self._latest: Evaluation | None = None
        self._saved_at = time.monotonic()

    def _resident(self) -> Resident | None:
        """A complete bank on the GPU, where steps are captured; None if there is none."""
        if self._replay is None:
            return None
        bank = self._replay.bank
        if bank.filled() == bank.contract.records:
            return Resident(bank, self.accelerator.device)
        LOGGER.warning(
            f"{bank.path} is not complete, so the teacher runs in every step; to be without it, "
            "fill the bank first by `understudy bank build`, or set training.graphs to false."
        )
        return None

    def _begin(self) -> None:
        self._write("recipe.yaml", recipes.dump(self.recipe))
        started = time.monotonic()
        self.experiment.prepare()
        environment = self._environment() | {
            "prepare_seconds": time.monotonic() - started,
            "teacher_seconds": self._teacher_seconds(),
        }
        self._write("environment.json", json.dumps(environment, indent=1))

    def _check_same(self) -> None:
        """Refuse to go on with other images or another teacher than the run began with."""
        before = Run(self.path).environment["digests"]
        for what, digest in self.experiment.digests.items():
            if digest != before[what]:
                raise RunError(
                    f"The {what} changed since {self.path} began ({before[what]} then, {digest} "
                    "now); put back what was there, or start again in another --out."
                )

    def finish(self) -> None:
        """Train to the end, evaluate and save the student.

        Raises:
            Diverged: A loss became NaN or infinite, which is noted in the run directory.
            Interrupted: A signal arrived; the state was saved.
        """
        try:
            self._train()
        except Diverged as error:
            self._write("diverged.txt", f"{error}\n")
            raise
        self._conclude()

    def _train(self) -> None:
        if self.recipe.training.trackers:
            # As text, since TensorBoard takes neither a list nor nothing for a value.
            keys = {key: str(value) for key, value in recipes.flat(self.recipe).items()}
            self.accelerator.init_trackers(self.recipe.name, config=keys)
        if self.callback:
            self.callback.start(self.trainer, self.recipe.name)
        if self.accelerator.is_main_process:
            self._log_start()
        with self._profile or nullcontext(), signals() as received:
            for epoch in self.trainer.fit(lambda: self._after_step(received)):
                self._record(epoch)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _log_start(self) -> None:
        LOGGER.info(str(self.choices))
        if skipped := self.experiment.skipped:
            LOGGER.warning(
                f"{len(skipped)} images skipped or repaired (first: {skipped[0]}; all in "
                "environment.json)"
            )

    def _conclude(self) -> None:
        evaluation = self._latest or self._evaluate()
        summary = self._summary(evaluation)
        self._write("evaluation.json", json.dumps(summary, indent=1))
        if self.callback:
            self.callback.end(self.recipe.name, self.experiment.task.headline, summary)
        self.accelerator.wait_for_everyone()

    def _record(self, epoch: Epoch) -> None:
        every = self.recipe.training.evaluate_every
        due = epoch.number % every == 0 or epoch.number == self.recipe.training.epochs
        evaluation = self._evaluate() if due else None
        record = asdict(epoch) | {
            "epoch": epoch.number,
            "metrics": evaluation.metrics if evaluation else None,
            "fidelity": evaluation.fidelity if evaluation else None,
            "teacher_seconds": self._teacher_seconds(),
        }
        del record["number"]
        self.records.append(record)
        self._write("metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.records))
        if evaluation:
            self._keep_student(evaluation)
        self._save()
        self.accelerator.log(_flat_numbers(record), step=epoch.step)
        if self.callback:
            self.callback.epoch(record)

    def _evaluate(self) -> Evaluation:
        """The student as it is now, on the test images; the teacher's side is computed once."""
        test, teacher = self.experiment.test, self.experiment.distiller.teacher
        task = self.experiment.task
        if teacher is not None and self._teacher_outputs is None:
            self._teacher_outputs = collect(
                teacher.network,
                test.single_pass(augmented=False),
                self.accelerator,
                task,
                replay=self._tested or teacher.outputs,
            )
        if self.accelerator.num_processes > 1:
            # Statistics follow the images of each process; it is the first one's that are saved.
            broadcast(list(self.trainer.student.buffers()))
        student = collect(
            self.trainer.student, test.single_pass(augmented=False), self.accelerator, task
        )
        if self.trainer.position.epoch == self.recipe.training.epochs:
            self._diagnose(student)
        close = comparable(task, self.trainer.student, self.experiment.teacher)
        self._latest = task.evaluate(student, self._teacher_outputs if close else None)
        return self._latest

    def _diagnose(self, student: Outputs) -> None:
        """Keep what the pictures need of the trained student."""
        if not self.accelerator.is_main_process:
            return
        found = diagnostics.measure(
            student,
            self._teacher_outputs,
            task=self.experiment.task,
            network=self.trainer.student,
            distiller=self.experiment.distiller,
            test=self.experiment.test,
            accelerator=self.accelerator,
        )
        if found:
            self._write("diagnostics.json", json.dumps(found))

    def _keep_student(self, evaluation: Evaluation) -> None:
        content = self._student_file(self.trainer.student)
        self._write("student.safetensors", content)
        headline = self.experiment.task.headline
        scores = [_score(r, headline) for r in self.records if r["metrics"] is not None]
        if scores[-1] >= max(scores):
            self._write("best/student.safetensors", content)

    def _student_file(self, student: Wrapped) -> bytes:
        state = {k: v.detach().cpu().contiguous() for k, v in student.plain().state_dict().items()}
        return bytes(save(state, metadata={"classes": json.dumps(self.experiment.classes)}))

    def _after_step(self, received: list[str]) -> None:
        if self._profile:
            self._profile.step()
        if self.callback:
            self.callback.step(self.trainer)
        if self.accelerator.num_processes > 1 and not self.trainer.may_wait:
            return
        due = time.monotonic() - self._saved_at > 60 * self.recipe.training.checkpoint_minutes
        stop, save = self._agreed(bool(received), due)
        if stop or save:
            self._save()
        if stop:
            raise Interrupted(
                f"Stopped by {received[0] if received else 'another process'} in epoch "
                f"{self.trainer.position.epoch + 1}, step {self.trainer.position.step}; "
                f"everything is saved in {self.path}: continue with --resume."
            )

    def _agreed(self, *flags: bool) -> list[bool]:
        """Which flags are set in any process, so that all of them do the same at the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(count) for count in self.accelerator.reduce(counts).tolist()]

    def _save(self) -> None:
        state = self.trainer.state_dict()
        if self.accelerator.is_main_process:
            save_checkpoint(self.path / "last", state)
        self.accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _saved(self) -> dict[str, Any] | None:
        """The state to continue from; None if the run stopped before anything was saved."""
        if not (self.path / "last").is_dir():
            return None
        return load_checkpoint(self.path / "last")

    def _write(self, name: str, content: str | bytes) -> None:
        if self.accelerator.is_main_process:
            files.write(self.path / name, content)

    def _environment(self) -> dict[str, Any]:
        process = {"rank": self.accelerator.process_index, "pid": os.getpid()}
        return (
            hardware.describe()
            | asdict(self.choices)
            | {
                "processes": gather_object([process]),
                "classes": self.experiment.classes,
                "skipped": self.experiment.skipped,
                "digests": self.experiment.digests,
            }
        )

    def _teacher_seconds(self) -> float | None:
        """Seconds in the teacher since this was asked last; None without a bank to fill."""
        if self._replay is None:
            return None
        seconds, self._replay.seconds = self._replay.seconds, 0.0
        return seconds

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        trained, begun = self.experiment.distiller.trainable, Run(self.path).environment
        return asdict(evaluation) | {
            "teacher": self._teacher_summary(),
            "prepare_seconds": begun["prepare_seconds"],
            "teacher_seconds": _teacher_seconds(begun, *self.records),
            "classes": self.experiment.classes,
            "parameters": _count(self.trainer.student.plain()),
            "train_parameters": _count(trained),
            "layers": self._layers(),
            "seconds": sum(record["seconds"] for record in self.records),
            "memory_mb": self._memory.mb,
        }

    def _layers(self) -> dict[str, dict[str, float]] | None:
        """What layers that stay in the student cost; None without any."""
        student = self.trainer.student
        return layers_cost(student) if isinstance(student, Network) else None

    def _teacher_summary(self) -> dict[str, Any] | None:
        """The teacher's own metrics on the test images; none if its classes are others."""
        teacher = self.experiment.teacher
        if self._teacher_outputs is None or teacher is None:
            return None
        own = Evaluation({}, [], None)
        if teacher.num_classes == self.trainer.student.num_classes:
            own = self.experiment.task.evaluate(self._teacher_outputs, None)
        return {
            "name": teacher.name,
            "metrics": own.metrics,
            "per_class": own.per_class,
            "parameters": _count(teacher.module),
        }


def _teacher_seconds(*parts: Mapping[str, Any]) -> float | None:
    """What filling the bank took of preparing and of all epochs; None without a bank."""
    found: list[Any] = [part.get("teacher_seconds") for part in parts]
    return None if None in found else float(sum(found))


def _score(record: dict[str, Any], headline: str) -> float:
    values = (record["metrics"] or {}) | (record["fidelity"] or {})
    return float(values.get(headline) or 0.0)


def _flat_numbers(record: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}/{k}".rstrip("/"): v for k, v in inner.items() if v is not None}
    return flat


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
