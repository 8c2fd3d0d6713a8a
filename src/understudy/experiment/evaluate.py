"""Evaluate the student of a run: after every epoch beside its teacher, and once it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from understudy import diagnostics, tasks
from understudy.bank.replay import Replay
from understudy.batch import Batch
from understudy.config.image_size import Size, of_sides
from understudy.config.recipe import Network, Recipe
from understudy.data import lost_workers_explained
from understudy.distillation.device_names import find_device
from understudy.distillation.distiller import Distillation
from understudy.distillation.wire import recipe_gives_scores
from understudy.errors import RunError
from understudy.experiment import build, networks
from understudy.experiment.build import Experiment
from understudy.experiment.fidelity import evaluation, outcomes
from understudy.experiment.outputs import collect, comparable
from understudy.experiment.own_images import given
from understudy.experiment.run_directory import Run
from understudy.experiment.stored_outputs import StoredOutputs
from understudy.features import Features
from understudy.models.base import Wrapped
from understudy.models.cost import num_parameters
from understudy.tasks import Evaluation, Outcomes, Outputs
from understudy.training.devices import accelerator
from understudy.training.missing_operations import missing_operations_explained


@final
class Evaluator:
    """Measures a student on the images of one split; its teachers' outputs are computed once.

    Args:
        experiment: Task, images and teachers.
        split: Split to measure on.
        student: Network to evaluate: the moving average, if there is one.
        accelerator: Devices, processes and precision.
        replays: Name of a teacher → what gives its outputs from a bank or a file, if there is one.
    """

    def __init__(
        self,
        experiment: Experiment,
        split: Literal["validation", "test"],
        student: Wrapped,
        accelerator: Accelerator,
        replays: Mapping[str, Replay | StoredOutputs],
    ) -> None:
        self._experiment, self._student, self.split = experiment, student, split
        validation = experiment.validation if split == "validation" else None
        self._loader = experiment.test if validation is None else validation
        self._accelerator, self._replays = accelerator, replays
        self._teacher_outputs: dict[str, Outputs] = {}
        self._summaries: dict[str, dict[str, Any]] = {}

    def collect(self) -> Outputs:
        """Return the present student's outputs on the images of all processes."""
        images, task = self._loader, self._experiment.task
        for each in self._experiment.distiller.distillations:
            if each.name not in self._teacher_outputs:
                self._teacher_outputs[each.name] = self._of_teacher(each)
        if self._accelerator.num_processes > 1:
            # Running statistics differ between processes, and those of the first are saved.
            broadcast(list(self._student.buffers()))
        return collect(self._student, images.single_pass(augmented=False), self._accelerator, task)

    def _of_teacher(self, each: Distillation) -> Outputs:
        stored = self._replays.get(each.name)

        def compute(replay: Callable[[Batch], Features]) -> Outputs:
            return collect(
                each.teacher.network,
                self._loader.single_pass(augmented=False),
                self._accelerator,
                self._experiment.task,
                role="teacher",
                replay=replay,
            )

        if isinstance(stored, StoredOutputs):
            return stored.or_computed(lambda: compute(each.teacher.outputs), self._accelerator)
        return compute(stored or each.teacher.outputs)

    def evaluate(self, student: Outputs, *, finished: bool = False) -> Evaluation:
        """Return metrics of outputs from `collect`, and their fidelity to the teachers'.

        Args:
            student: Outputs of the student.
            finished: Compute what takes too long for every epoch, too.
        """
        measured = evaluation(self._experiment.task, student, self._compared, finished=finished)
        return replace(
            measured,
            split=self.split,
            images=len(self._loader.labels),
            origin=self._experiment.images.origins.get(self.split, ""),
        )

    @property
    def _compared(self) -> dict[str, Outputs | None]:
        experiment = self._experiment
        return {
            each.name: comparable(
                experiment.task,
                self._student,
                each.teacher.network,
                self._teacher_outputs.get(each.name),
                scores=experiment.distiller.trainable.gives_scores,
            )
            for each in experiment.distiller.distillations
        }

    def measure(self) -> Evaluation:
        """Return metrics of the present student, and their fidelity to the teachers'."""
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
        return outcomes(self._experiment.task, student, self._compared)

    def teacher_score(self, metric: str) -> dict[str, float]:
        """Return a metric of the only teacher under `teacher`; nothing where it is not known."""
        if not self._experiment.task.uses_labels:
            return {}  # fidelity to the teacher ranks: nothing that it has itself
        summaries = self.teacher_summaries()
        value = summaries.popitem()[1]["metrics"].get(metric) if len(summaries) == 1 else None
        return {} if value is None else {"teacher": value}

    def teacher_summaries(self) -> dict[str, dict[str, Any]]:
        """Return name, size and own metrics of each teacher; no metrics if its classes differ."""
        task = self._experiment.task
        for each in self._experiment.distiller.distillations:
            network, outputs = each.teacher.network, self._teacher_outputs.get(each.name)
            if outputs is None or each.name in self._summaries:
                continue
            own = Evaluation({}, [], None)
            if self._student.same_classes(network) or not task.uses_labels:
                own = task.measure(outputs, finished=True)
            self._summaries[each.name] = {
                "name": network.name,
                "metrics": own.metrics,
                "per_class": own.per_class,
                "parameters": num_parameters(network.module),
            }
        return dict(self._summaries)


@lost_workers_explained()
@missing_operations_explained()
def evaluate(
    run: str | Path | Run | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    device: str | None = None,
) -> Evaluation:
    """Measure the trained student of a run, on its own test images or on others.

    Without a run, measure the network that the keys `student.name` and `student.weights` name, such
    as a teacher before anything is distilled from it: its number is that of the teacher in a
    comparison.

    Args:
        run: Run, or its directory; None for a network of weights from elsewhere.
        overrides: Keys of the recipe to replace, such as `{"data.root": "other_images"}`; see
            `Recipe.load`. A folder of class folders without splits is measured as a whole.
        data: Test images of a program, in place of those that the recipe names: a dataset, a pair
            of arrays, or the tuple that `train` takes.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.

    Returns:
        Metrics, accuracy per class, and fidelity to the teacher, which is None without one; and
        which images they are of. Of teachers with names, fidelity to each is under `dino/…`.

    Raises:
        RunError: There is no run or no student in the directory.
        DataError: The student was trained for other classes than those of the images.
        NetworkError: The run names a Python file for a network; see the key `trust` of a recipe.
        UnderstudyError: Images or teacher of the recipe are missing.

    Example:
        evaluation = understudy.evaluate("runs/student", {"data.root": "other_images"})
        print(evaluation.metrics["top1"])
    """
    find_device(device)
    if run is None:
        with given(Recipe.load({}, overrides), data, alone="test") as recipe:
            trained = build.trained_network(recipe)
    else:
        recipe, trained = _trained_in(Run(Path(run)), overrides, data)
    devices = accelerator(recipe.training, device, student=trained.student)
    # In another format sums round otherwise, and detections whose scores almost agree change their
    # order.
    last = run is not None and Run(Path(run)).channels_last
    layout = torch.channels_last if last else torch.contiguous_format

    def outputs(network: Wrapped, role: str) -> Outputs:
        return collect(
            network.to(devices.device).to(memory_format=layout),
            trained.test.single_pass(augmented=False),
            devices,
            trained.task,
            role=role,
        )

    of_student = outputs(trained.student, "student")
    # What weights named by the user give is taken for scores: nothing tells how they were trained.
    scores = run is None or recipe_gives_scores(recipe)
    compared = {
        name: comparable(
            trained.task, trained.student, teacher, outputs(teacher, "teacher"), scores=scores
        )
        for name, teacher in trained.teachers.items()
    }
    measured = evaluation(trained.task, of_student, compared, finished=True)
    return replace(
        measured, split=trained.split, images=len(trained.test.labels), origin=trained.origin
    )


def _trained_in(
    run: Run, overrides: Mapping[str, Any] | None, data: Any
) -> tuple[Recipe, build.TrainedStudent]:
    """Return the recipe of a run, with some keys replaced, and what it takes to measure it."""
    if run.path.is_file():
        raise RunError(
            f"{run.path} is a file, not a run directory: give weights by --student.weights "
            f"{run.path} and their network by --student.name."
        )
    stored = run.recipe
    # What the run trusted when it was trained, perhaps by somebody else, says nothing here.
    recipe = Recipe.load(replace(stored, trust=False), overrides)
    networks.check_trust(recipe, stored, run.path)
    begun = (run.path / "environment.json").is_file()
    classes = run.environment.get("classes") or () if begun else ()
    weights = _student_file(run.path)
    with given(recipe, data, alone="test", classes=classes) as measured:
        return measured, build.trained_student(measured, weights, trained_on=run.trained_on)


def load_student(run: Run, *, trust: bool = False) -> nn.Module:
    """Return the trained student of a run as a plain module in evaluation mode, on the CPU.

    Needs no images: the file of the student tells its classes.

    Raises:
        RunError: There is no run or no student in the directory.
        NetworkError: The network cannot be built, or the weights do not fit.
    """
    return student_of(run, trust=trust).plain()


def student_of(run: Run, *, trust: bool = False) -> Wrapped:
    """Return the same with its features by name; see `load_student`."""
    recipe = replace(run.recipe, trust=trust)
    networks.check_trust(recipe.with_teacher(Network()), run.recipe, run.path)
    # Built as a teacher, which takes the classes that its weights are of.
    spec = replace(recipe.student, weights=str(_student_file(run.path)))
    student = networks.teacher(
        recipe.with_teacher(spec),
        (),
        tasks.find(recipe.task, recipe.training),
        view_size=_view_size(run),
    )
    assert student is not None
    return student


def _view_size(run: Run) -> Size:
    """Return the size of the views of a run, as it is recorded; else as its recipe names it."""
    recorded = run.environment.get("view_size") or run.recipe.data.size or build.LARGE
    return recorded if isinstance(recorded, int) else of_sides(*recorded)


def _student_file(path: Path) -> Path:
    if not (path / "student.safetensors").is_file():
        raise RunError(f"{path} holds no student yet; continue it with --resume.")
    return path / "student.safetensors"
