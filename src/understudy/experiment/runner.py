"""Executes a recipe in a run directory: builds it, trains, evaluates, and stops on a signal."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, final

import torch

from understudy.config.recipe import Recipe
from understudy.errors import Diverged, Interrupted, NetworkError
from understudy.experiment import defaults, splits
from understudy.experiment.balance import balanced
from understudy.experiment.callback import Callback
from understudy.experiment.epoch_records import (
    best_epoch,
    flat_numbers,
    measures,
    of_teachers,
    total_teacher_seconds,
)
from understudy.experiment.evaluate import Evaluator
from understudy.experiment.extension import check_patience, out_of_patience
from understudy.experiment.images import Images, skipped_sentence
from understudy.experiment.recorder import Recorder
from understudy.experiment.run_directory import Run
from understudy.experiment.setup import Setup, set_up
from understudy.experiment.student_file.describe import describe, measured
from understudy.experiment.teacher_warning import warn_of_teachers
from understudy.files import to_continue
from understudy.models.cost import layers_cost, num_parameters
from understudy.models.network import Network
from understudy.profiling import Profile
from understudy.tasks import Evaluation
from understudy.training import hardware
from understudy.training.devices import processes
from understudy.training.signals import stop_signals
from understudy.training.threads import ThreadChoice
from understudy.training.too_short import unreached
from understudy.training.trainer import Epoch, Trainer

LOGGER = logging.getLogger("understudy")


@final
class Runner:
    """Executes one recipe in one run directory: `start` makes one, `finish` trains it to the end.

    Args:
        recipe: What to train.
        setup: All that the recipe names.
        trainer: Training, at the position to continue from.
        recorder: Writes the run directory.
        memory: Peak memory since before anything was built.
        callback: Told about progress; None in all processes but the first.
        profile: Measures where the time of some steps goes.
    """

    def __init__(
        self,
        recipe: Recipe,
        setup: Setup,
        trainer: Trainer,
        recorder: Recorder,
        *,
        memory: hardware.PeakMemory,
        callback: Callback | None,
        profile: Profile | None,
    ) -> None:
        self.recipe, self.trainer = recipe, trainer
        self.experiment, self.accelerator = setup.experiment, setup.accelerator
        self.callback = callback
        self._setup, self._recorder = setup, recorder
        self._memory, self._profile = memory, profile
        self._final, self._each_epoch = _evaluators(recipe, setup, trainer)
        # Before training, so that a student that cannot be described fails at once.
        self._description = describe(recipe, setup.experiment, trainer.student)
        self._latest: Evaluation | None = None
        self._saved_at = time.monotonic()

    @classmethod
    def start(
        cls,
        path: Path,
        recipe: Recipe,
        *,
        resume: bool = False,
        device: str | None = None,
        callback: Callback | None = None,
        profile: bool = False,
        images: Images | None = None,
        threads: ThreadChoice = None,
    ) -> "Runner":
        """Build what a recipe names; begin its run directory, or continue from the saved state.

        Args:
            path: Run directory.
            recipe: What to train.
            resume: Continue from the saved state, if there is one.
            device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
            callback: Told about progress.
            profile: Measure where the time of some steps goes.
            images: Training and test images of the recipe, if they are read already.
            threads: Threads of the CPU; of a run that is continued, those it began with.

        Raises:
            UnderstudyError: Something the recipe names is missing or does not fit together, or the
                images or the teacher changed since the run began.
        """
        memory = hardware.PeakMemory(processes(device).device)
        before = Run(path).threads if resume else None
        setup = set_up(
            recipe, device, folder=path, images=images, threads=threads, threads_before=before
        )
        recipe, main = setup.experiment.recipe, setup.accelerator.is_main_process
        check_patience(recipe, setup.experiment.images)
        recorder = Recorder(path, setup.accelerator)
        state = recorder.saved_state() if resume else None
        if state is None:
            recipe = _begin(recipe, setup, recorder)
        else:
            recorder.check_same(setup.experiment.digests)
        trainer = Trainer(
            setup.experiment.distiller,
            setup.experiment.train,
            recipe.training,
            settings=setup.settings,
            seed=recipe.seed,
            accelerator=setup.accelerator,
            resident=setup.residents,
        )
        if state is not None:
            trainer.load_state_dict(state)
            recorder.continue_from(trainer.position.epoch)
        return cls(
            recipe,
            setup,
            trainer,
            recorder,
            memory=memory,
            callback=callback if main else None,
            profile=Profile(path / "profile.json") if profile and main else None,
        )

    def finish(self) -> None:
        """Train to the end, evaluate and save the student.

        Raises:
            Diverged: A loss, a weight or an output became NaN or infinite, which is noted in the
                run directory.
            Interrupted: A signal arrived; the state was saved.
        """
        try:
            self._train()
            summary = self._summary(self._latest or self._evaluate_last())
        except Diverged as error:
            explained = self._explained(error)
            self._recorder.write_diverged(explained)
            raise explained from error
        self._conclude(summary)

    def _explained(self, error: Diverged) -> Diverged:
        """Return the error, with the teacher as its cause if that is not finite either."""
        each, batches = self.experiment.distiller.distillations, self.experiment.everything
        if not each or self.experiment.task.truth == "objects":
            return error
        batch = next(batches.single_pass(augmented=False))[: self.recipe.training.batch]
        batch = batch.to(self.accelerator.device, self._setup.settings.memory_format)
        try:
            for teacher in (one.teacher for one in each):
                teacher.refuse_not_finite(teacher(batch))
        except NetworkError as cause:
            return Diverged(f"{error} {cause}")
        return error

    def _train(self) -> None:
        if self.recipe.training.trackers:
            # As text, since TensorBoard takes neither a list nor nothing for a value.
            keys = {key: str(value) for key, value in self.recipe.flat().items()}
            self.accelerator.init_trackers(self.recipe.name, config=keys)
        if self.callback:
            self.callback.start(self.trainer, self.recipe.name)
        if self.accelerator.is_main_process:
            self._log_start()
        if not (self.experiment.task.uses_labels or self.recipe.each_method):
            self._keep_untrained()
            return
        with self._profile or nullcontext(), stop_signals() as received:
            epochs = self.trainer.fit(lambda: self._after_step(received))
            while not self._ended() and (epoch := next(epochs, None)):
                self._record(epoch)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _keep_untrained(self) -> None:
        """Write the student as it begins: the control of a comparison without labels."""
        weights = "its own" if self.recipe.student.weights else "random"
        LOGGER.info(f"Without labels and methods the student is measured with {weights} weights.")
        self._evaluate_last()
        self._recorder.write_no_epochs()
        self._recorder.write_student(self.trainer.student, self.experiment.classes, best=False)

    def _ended(self) -> bool:
        """Return True, and say so, if validation images have seen no progress for too long."""
        headline = self.experiment.task.headline
        if not out_of_patience(self.recipe, self._recorder.records, headline):
            return False
        training, done = self.recipe.training, self.trainer.position.epoch
        if self.accelerator.is_main_process and done < training.epochs:
            LOGGER.info(
                f"Ended after {done} of {training.epochs} epochs: none of the last "
                f"{training.patience} evaluations on validation images (training.patience) was "
                "better than the best before; best/ has that student."
            )
        return True

    def _log_start(self) -> None:
        LOGGER.info(str(self._setup.settings))
        LOGGER.info(splits.sentence(self.experiment.images.counts(), self._chosen_on))
        if self.recipe.each_method and not self.experiment.distiller.trainable.gives_scores:
            LOGGER.info(
                "No method reads the student's scores of classes, so that its classifier stays "
                "untrained: agreement and KL are not measured, and what it predicts means nothing "
                "before it is trained with labels (understudy finetune)."
            )
        weights, steps = self.experiment.distiller.weights, len(self.trainer.loader)
        for key in unreached(self.recipe.training, weights, steps):
            LOGGER.warning(key.message)
        if skipped := self.experiment.skipped:
            LOGGER.warning(skipped_sentence(skipped))

    def _conclude(self, summary: dict[str, Any]) -> None:
        if replaced := self.experiment.images.replaced:
            LOGGER.warning(skipped_sentence(replaced))
            self._recorder.add_skipped(replaced)
        self._write_configs(summary)
        self._recorder.write_evaluation(summary)
        metric, teachers = self.experiment.task.headline, self._final.teacher_summaries()
        own, classes = summary["metrics"].get(metric), len(self.experiment.classes)
        images = summary["images"]
        warn_of_teachers(metric, teachers, own, classes=classes, images=images)
        if self.callback:
            judged_by = self.experiment.task.judged_by(summary["metrics"])
            self.callback.end(self.recipe.name, judged_by, summary)
        self.accelerator.wait_for_everyone()

    def _write_configs(self, summary: Mapping[str, Any]) -> None:
        """Write how the last student and the best one are built, prepared and measured."""
        settings = self._setup.settings
        self._recorder.write_config(measured(self._description, summary, settings))
        if summary["best"] is not None:
            best = measured(self._description, summary, settings, best=True)
            self._recorder.write_config(best, best=True)

    @property
    def _chosen_on(self) -> str | None:
        """Split that chooses the best epoch; None if no epoch is chosen."""
        best, validation = self.recipe.training.best, self.experiment.images.validation
        unchosen = best == "none" or (best == "validation" and validation is None)
        return None if unchosen else self._each_epoch.split

    def _record(self, epoch: Epoch) -> None:
        training, headline = self.recipe.training, self.experiment.task.headline
        last = epoch.number == training.epochs
        due = last or epoch.number % training.evaluate_every == 0
        evaluation = self._evaluate_epoch(last=last) if due else None
        best = bool(evaluation and self._chosen_on and self._recorder.is_best(evaluation, headline))
        record = asdict(epoch) | {
            "epoch": epoch.number,
            "split": self._each_epoch.split,
            **measures(evaluation),
            "best": best,
            **measures(self._final_of(evaluation) if best else None, "final_"),
            "teacher_seconds": self._setup.take_teacher_seconds(),
        }
        del record["number"]
        self._recorder.write_epoch(record)
        if evaluation:
            self._recorder.write_student(self.trainer.student, self.experiment.classes, best=best)
        self._save()
        self.accelerator.log(flat_numbers(record), step=epoch.step)
        if self.callback:
            self.callback.epoch(record | self._each_epoch.teacher_score(headline))

    def _evaluate_epoch(self, *, last: bool) -> Evaluation:
        """Evaluate the student on the images of every epoch; after the last, on all."""
        final = self._evaluate_last() if last else None
        same = self._each_epoch is self._final
        return final if final and same else self._each_epoch.measure()

    def _evaluate_last(self) -> Evaluation:
        """Evaluate the student of the last epoch; write data for the report's charts."""
        outputs = self._final.collect()
        if self.accelerator.is_main_process:
            self._recorder.write_diagnostics(self._final.diagnostics(outputs))
            self._recorder.write_outcomes(self._final.outcomes(outputs))
        self._latest = self._final.evaluate(outputs, finished=True)
        return self._latest

    def _final_of(self, evaluation: Evaluation | None) -> Evaluation | None:
        """Evaluate the student of this epoch on the images that measure a finished one."""
        if self._each_epoch is self._final:
            return evaluation
        return self._latest or self._final.measure()

    def _after_step(self, received: list[str]) -> None:
        """Save the state when it is due, and stop if a signal was received.

        Raises:
            Interrupted: This or another process received a signal.
        """
        if self._profile:
            self._profile.step()
        if self.callback:
            self.callback.step(self.trainer)
        if self.accelerator.num_processes > 1 and not self.trainer.may_wait:
            return
        due = time.monotonic() - self._saved_at > 60 * self.recipe.training.checkpoint_minutes
        stop, save = self._set_in_any_process(bool(received), due)
        if stop or save:
            self._save()
        if stop:
            raise Interrupted(
                f"Stopped by {received[0] if received else 'another process'} in epoch "
                f"{self.trainer.position.epoch + 1}, step {self.trainer.position.step}; "
                f"everything is saved in {self._recorder.path}: {to_continue(self._recorder.path)}."
            )

    def _set_in_any_process(self, *flags: bool) -> list[bool]:
        """Return which flags are set in any process: all must do the same at the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(count) for count in self.accelerator.reduce(counts).tolist()]

    def _save(self) -> None:
        self._recorder.write_state(self.trainer.state_dict())
        self._saved_at = time.monotonic()

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the content of `evaluation.json`."""
        environment, records = self._recorder.environment, self._recorder.records
        student, chosen_by = self.trainer.student, self.experiment.task.headline
        return asdict(evaluation) | {
            "best": best_epoch(records, self._chosen_on, chosen_by, self._final.split),
            **of_teachers(self._final.teacher_summaries()),
            "prepare_seconds": environment["prepare_seconds"],
            "teacher_seconds": total_teacher_seconds(environment, *records),
            "classes": self.experiment.classes,
            "parameters": num_parameters(student.plain()),
            "train_parameters": num_parameters(self.experiment.distiller.trainable),
            "layers": layers_cost(student) if isinstance(student, Network) else None,
            "seconds": sum(record["seconds"] for record in records),
            "memory_mb": self._memory.mb,
        }


def _begin(recipe: Recipe, setup: Setup, recorder: Recorder) -> Recipe:
    """Write what the run begins with, and let the methods measure the teacher.

    Returns:
        The recipe, with the weights of methods if they had to be found.
    """
    recorder.write_recipe(recipe)
    started = time.monotonic()
    setup.experiment.prepare()
    complete, of_methods = balanced(recipe, setup.experiment, setup.settings)
    if complete != recipe:
        recorder.write_recipe(complete)
    reasons = {**setup.experiment.reasons, **of_methods}
    if setup.accelerator.is_main_process:
        for line in defaults.say(reasons, complete.flat()):
            LOGGER.info(line)
    recorder.write_environment(
        setup.environment()
        | {
            "reasons": reasons,
            "prepare_seconds": time.monotonic() - started,
            "teacher_seconds": setup.take_teacher_seconds(),
        }
    )
    return complete


def _evaluators(recipe: Recipe, setup: Setup, trainer: Trainer) -> tuple[Evaluator, Evaluator]:
    """Return what measures the finished student, and what measures that of every epoch."""
    experiment, student = setup.experiment, trainer.student

    def on(split: Literal["validation", "test"]) -> Evaluator:
        replays = setup.measured_replays[split]
        return Evaluator(experiment, split, student, setup.accelerator, replays)

    images = experiment.images
    final = on(images.measured)
    own = images.validation is None or images.measured == "validation"
    return final, final if own else on("validation")
