"""Evaluates the student of a run in training, beside its teacher."""

from dataclasses import replace
from typing import Any, Literal, final

from accelerate import Accelerator
from accelerate.utils import broadcast

from understudy import diagnostics
from understudy.bank.replay import Replay
from understudy.experiment.build import Experiment
from understudy.experiment.evaluate import collect, comparable
from understudy.models.base import Wrapped
from understudy.models.cost import num_parameters
from understudy.tasks import Evaluation, Outcomes, Outputs


@final
class Evaluator:
    """Measures a student on the images of one split; the teacher's outputs are computed once.

    Args:
        experiment: Task, images and teacher.
        split: Split to measure on.
        student: Network to evaluate: the moving average, if there is one.
        accelerator: Devices, processes and precision.
        replay: Gives the teacher's outputs from a bank, if there is one.
    """

    def __init__(
        self,
        experiment: Experiment,
        split: Literal["validation", "test"],
        student: Wrapped,
        accelerator: Accelerator,
        replay: Replay | None,
    ) -> None:
        self._experiment, self._student, self.split = experiment, student, split
        validation = experiment.validation if split == "validation" else None
        self._loader = experiment.test if validation is None else validation
        self._accelerator, self._replay = accelerator, replay
        self._teacher_outputs: Outputs | None = None

    def collect(self) -> Outputs:
        """Return the present student's outputs on the images of all processes."""
        images, task = self._loader, self._experiment.task
        teacher = self._experiment.distiller.teacher
        if teacher is not None and self._teacher_outputs is None:
            self._teacher_outputs = collect(
                teacher.network,
                images.single_pass(augmented=False),
                self._accelerator,
                task,
                role="teacher",
                replay=self._replay or teacher.outputs,
            )
        if self._accelerator.num_processes > 1:
            # Running statistics differ between processes, and those of the first are saved.
            broadcast(list(self._student.buffers()))
        return collect(self._student, images.single_pass(augmented=False), self._accelerator, task)

    def evaluate(self, student: Outputs) -> Evaluation:
        """Return metrics of outputs from `collect`, and their fidelity to the teacher's."""
        task = self._experiment.task
        teacher = self._experiment.teacher
        compared = comparable(task, self._student, teacher, self._teacher_outputs)
        return replace(
            task.evaluate(student, compared),
            split=self.split,
            images=len(self._loader.labels),
            origin=self._experiment.images.origins.get(self.split, ""),
        )

    def measure(self) -> Evaluation:
        """Return metrics of the present student, and their fidelity to the teacher's."""
        return self.evaluate(self.collect())

    def diagnostics(self, student: Outputs) -> dict[str, Any]:
        """Return data for the report's charts, of outputs from `collect`; may be empty."""
        return diagnostics.measure(
            student,
            self._teacher_outputs,
            task=self._experiment.task,
            network=self._student,
            distiller=self._experiment.distiller,
            test=self._loader,
            accelerator=self._accelerator,
        )

    def outcomes(self, student: Outputs) -> Outcomes | None:
        """Return what single images contribute to the headline metric."""
        return self._experiment.task.outcomes(student)

    def teacher_summary(self) -> dict[str, Any] | None:
        """Return name, size and own metrics of the teacher; no metrics if its classes differ."""
        teacher = self._experiment.teacher
        if self._teacher_outputs is None or teacher is None:
            return None
        evaluation = Evaluation({}, [], None)
        if self._student.same_classes(teacher):
            evaluation = self._experiment.task.evaluate(self._teacher_outputs, None)
        return {
            "name": teacher.name,
            "metrics": evaluation.metrics,
            "per_class": evaluation.per_class,
            "parameters": num_parameters(teacher.module),
        }
