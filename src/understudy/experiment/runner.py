"""Executes a recipe in a run directory: builds it, trains, evaluates, and stops on a signal."""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from understudy.bank import Resident
from understudy.config.recipe import Recipe
from understudy.errors import Diverged, Interrupted
from understudy.experiment import bank_attach, build
from understudy.experiment.build import Experiment
from understudy.experiment.callback import Callback
from understudy.experiment.evaluator import Evaluator
from understudy.experiment.images import Images
from understudy.experiment.recorder import Recorder
from understudy.models.cost import layers_cost, num_parameters
from understudy.models.network import Network
from understudy.profiling import Profile
from understudy.tasks import Evaluation
from understudy.training import hardware
from understudy.training.devices import ComputeSettings, accelerator, processes, resolve
from understudy.training.signals import stop_signals
from understudy.training.trainer import Epoch, Trainer

LOGGER = logging.getLogger("understudy")


@final
class Runner:
    """Executes one recipe in one run directory: `start` builds it, `finish` trains it to the end.

    Args:
        path: Run directory.
        recipe: What to train.
        resume: Continue from the saved state, if there is one.
        device: `cpu`, or None for the best device there is.
        callback: Told about progress.
        profile: Measure where the time of some steps goes.
        images: Training and test images of the recipe, if they are loaded already.
    """

    experiment: Experiment
    accelerator: Accelerator
    settings: ComputeSettings
    trainer: Trainer

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
        self._resume, self._device, self._profiled = resume, device, profile
        self.callback, self._images = callback, images
        self._latest: Evaluation | None = None
        self._saved_at = 0.0

    def start(self) -> "Runner":
        """Build what the recipe names; begin the run directory, or continue from its saved state.

        Returns:
            Itself, ready to train.

        Raises:
            UnderstudyError: Something the recipe names is missing or does not fit together, or the
                images or the teacher changed since the run began.
        """
        process = processes(self._device)
        self._memory = hardware.PeakMemory(process.device)
        if not process.is_main_process:
            self.callback = None
        self.experiment = build.experiment(
            self.recipe,
            rank=process.process_index,
            world=process.num_processes,
            images=self._images,
        )
        self._place()
        self._recorder = Recorder(self.path, self.accelerator)
        state = self._recorder.saved_state() if self._resume else None
        if state is None:
            self._begin()
        else:
            self._recorder.check_same(self.experiment.digests)
        self.trainer = self._made_trainer()
        self._evaluator = Evaluator(
            self.experiment, self.trainer.student, self.accelerator, self._tested
        )
        self._profile = (
            Profile(self.path / "profile.json")
            if self._profiled and self.accelerator.is_main_process
            else None
        )
        if state is not None:
            self.trainer.load_state_dict(state)
            self._recorder.continue_from(self.trainer.position.epoch)
        self._saved_at = time.monotonic()
        return self

    def _place(self) -> None:
        """Move the networks to their device, behind the bank of the recipe if it names one."""
        training, distiller = self.recipe.training, self.experiment.distiller
        self.accelerator = accelerator(
            training,
            self._device,
            student=distiller.student,
            trackers=training.trackers,
            folder=self.path,
        )
        self.settings = resolve(training, distiller, self.accelerator.device)
        # Before methods measure the teacher: what it gives them may be stored for training.
        self.settings.apply(distiller)
        with self.accelerator.main_process_first():  # which makes the bank, if there is none
            self._replay = bank_attach.attach(self.experiment, self.recipe)
            self._tested = bank_attach.tested(self.experiment, self.recipe)

    def _made_trainer(self) -> Trainer:
        return Trainer(
            self.experiment.distiller,
            self.experiment.train,
            self.recipe.training,
            settings=self.settings,
            seed=self.recipe.seed,
            accelerator=self.accelerator,
            resident=self._resident,
        )

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
        self._recorder.write_recipe(self.recipe)
        started = time.monotonic()
        self.experiment.prepare()
        self._recorder.write_environment(
            self._environment()
            | {
                "prepare_seconds": time.monotonic() - started,
                "teacher_seconds": self._teacher_seconds(),
            }
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
            self._recorder.write_diverged(error)
            raise
        self._conclude()

    def _train(self) -> None:
        if self.recipe.training.trackers:
            # As text, since TensorBoard takes neither a list nor nothing for a value.
            keys = {key: str(value) for key, value in self.recipe.flat().items()}
            self.accelerator.init_trackers(self.recipe.name, config=keys)
        if self.callback:
            self.callback.start(self.trainer, self.recipe.name)
        if self.accelerator.is_main_process:
            self._log_start()
        with self._profile or nullcontext(), stop_signals() as received:
            for epoch in self.trainer.fit(lambda: self._after_step(received)):
                self._record(epoch)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _log_start(self) -> None:
        LOGGER.info(str(self.settings))
        if skipped := self.experiment.skipped:
            LOGGER.warning(
                f"{len(skipped)} images skipped or repaired (first: {skipped[0]}; all in "
                "environment.json)"
            )

    def _conclude(self) -> None:
        evaluation = self._latest or self._evaluate()
        summary = self._summary(evaluation)
        self._recorder.write_evaluation(summary)
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
        self._recorder.write_epoch(record)
        if evaluation:
            self._recorder.write_student(
                self.trainer.student,
                self.experiment.classes,
                headline=self.experiment.task.headline,
            )
        self._save()
        self.accelerator.log(_flat_numbers(record), step=epoch.step)
        if self.callback:
            self.callback.epoch(record)

    def _evaluate(self) -> Evaluation:
        outputs = self._evaluator.collect()
        last = self.trainer.position.epoch == self.recipe.training.epochs
        if last and self.accelerator.is_main_process:
            self._recorder.write_diagnostics(self._evaluator.diagnostics(outputs))
        self._latest = self._evaluator.evaluate(outputs)
        return self._latest

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
        self._recorder.write_state(self.trainer.state_dict())
        self._saved_at = time.monotonic()

    def _environment(self) -> dict[str, Any]:
        process = {"rank": self.accelerator.process_index, "pid": os.getpid()}
        return (
            hardware.describe()
            | asdict(self.settings)
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
        environment, records = self._recorder.environment, self._recorder.records
        return asdict(evaluation) | {
            "teacher": self._evaluator.teacher_summary(),
            "prepare_seconds": environment["prepare_seconds"],
            "teacher_seconds": _teacher_seconds(environment, *records),
            "classes": self.experiment.classes,
            "parameters": num_parameters(self.trainer.student.plain()),
            "train_parameters": num_parameters(self.experiment.distiller.trainable),
            "layers": self._layers(),
            "seconds": sum(record["seconds"] for record in records),
            "memory_mb": self._memory.mb,
        }

    def _layers(self) -> dict[str, dict[str, float]] | None:
        """What layers that stay in the student cost; None without any."""
        student = self.trainer.student
        return layers_cost(student) if isinstance(student, Network) else None


def _teacher_seconds(*parts: Mapping[str, Any]) -> float | None:
    """What filling the bank took of preparing and of all epochs; None without a bank."""
    seconds: list[Any] = [part.get("teacher_seconds") for part in parts]
    return None if None in seconds else float(sum(seconds))


def _flat_numbers(record: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}/{k}".rstrip("/"): v for k, v in inner.items() if v is not None}
    return flat
