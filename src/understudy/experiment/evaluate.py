"""Measure networks: their outputs over a set of images, and the trained student of a run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from understudy import tasks
from understudy.batch import Batch
from understudy.config.recipe import Network, Recipe
from understudy.data import lost_workers_explained
from understudy.distillation.device_names import find_device
from understudy.distillation.memory_parts import MemoryParts
from understudy.errors import Diverged, NetworkError, RunError
from understudy.experiment import build, networks
from understudy.experiment.run_directory import Run
from understudy.features import Features
from understudy.models.base import Wrapped
from understudy.tasks import Evaluation, Outputs, Task
from understudy.training.devices import accelerator


@torch.no_grad()
def collect(
    network: Wrapped,
    batches: Iterable[Batch],
    accelerator: Accelerator,
    task: Task,
    *,
    role: str = "student",
    replay: Callable[[Batch], Features] | None = None,
) -> Outputs:
    """Return the outputs of a network in evaluation mode, from all processes, ordered by index.

    Args:
        network: Student or teacher.
        batches: This process's share of the images.
        accelerator: Devices, processes and precision.
        task: Selects what is kept of the outputs.
        role: `student` or `teacher`, for errors.
        replay: Returns stored outputs of the network instead of running it.

    Raises:
        Diverged: An output of the student is NaN or infinite.
        NetworkError: An output of the teacher is.
    """
    training = network.training
    network.eval()
    compute = replay or network.outputs
    in_parts = MemoryParts("evaluating")
    parts = [
        outputs
        for batch in batches
        for outputs in in_parts(batch, lambda part: _outputs(compute, part, accelerator, task))
    ]
    network.train(training)
    every = task.concatenate(gather_object(parts) if accelerator.num_processes > 1 else parts)
    _check_finite(every, network.name, role)
    return every


def _check_finite(outputs: Outputs, name: str, role: str) -> None:
    bad = sum(int((~x.isfinite()).sum()) for x in outputs.values() if x.is_floating_point())
    if not bad:
        return
    what = f"The outputs of the {role} {name} on the test images hold {bad:,} values that are NaN "
    what += "or infinite, so that nothing can be measured"
    if role == "teacher":
        raise NetworkError(f"{what}: correct its weights, or compute it in fp32.")
    raise Diverged(f"{what}: lower training.lr or set training.clip; with fp16, try bf16.")


def _outputs(
    compute: Callable[[Batch], Features], batch: Batch, accelerator: Accelerator, task: Task
) -> Outputs:
    batch = batch.to(accelerator.device, torch.contiguous_format)
    with accelerator.autocast():
        kept = task.collect(compute(batch), batch)
    return {name: x.float().cpu() if x.is_floating_point() else x.cpu() for name, x in kept.items()}


def comparable(
    task: Task, student: Wrapped, teacher: Wrapped | None, outputs: Outputs | None
) -> Outputs | None:
    """Return the teacher's outputs that a student is compared with; None if there are none.

    If the classes are others, boxes are not compared, and of whole images only features.
    """
    if outputs is None or student.same_classes(teacher):
        return outputs
    if task.truth == "objects":
        return None
    return {name: x for name, x in outputs.items() if name != "logits"}


@lost_workers_explained()
def evaluate(
    run: str | Path | Run,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
) -> Evaluation:
    """Measure the trained student of a run, on its own test images or on others.

    Args:
        run: Run, or its directory.
        overrides: Keys of the recipe to replace, such as `{"data.root": "other_images"}`; see
            `Recipe.load`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.

    Returns:
        Metrics, accuracy per class, and fidelity to the teacher, which is None without one; and
        which images they are of.

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
    path = Path(run)
    stored = Run(path).recipe
    # What the run trusted when it was trained, perhaps by somebody else, says nothing here.
    recipe = Recipe.load(replace(stored, trust=False), overrides)
    networks.check_trust(recipe, stored)
    trained = build.trained_student(recipe, _student_file(path))
    devices = accelerator(recipe.training, device, student=trained.student)
    outputs = [
        collect(
            network.to(devices.device),
            trained.test.single_pass(augmented=False),
            devices,
            trained.task,
            role=role,
        )
        for role, network in (("student", trained.student), ("teacher", trained.teacher))
        if network is not None
    ]
    of_teacher = outputs[1] if trained.teacher else None
    compared = comparable(trained.task, trained.student, trained.teacher, of_teacher)
    evaluation = trained.task.evaluate(outputs[0], compared)
    return replace(
        evaluation, split=trained.split, images=len(trained.test.labels), origin=trained.origin
    )


def load_student(run: Run, *, trust: bool = False) -> nn.Module:
    """Return the trained student of a run as a plain module in evaluation mode, on the CPU.

    Needs no images: the file of the student tells its classes.

    Raises:
        RunError: There is no run or no student in the directory.
        NetworkError: The network cannot be built, or the weights do not fit.
    """
    recipe = replace(run.recipe, trust=trust)
    networks.check_trust(replace(recipe, teacher=Network()), run.recipe)
    # Built as a teacher, which takes the classes that its weights are of.
    spec = replace(recipe.student, weights=str(_student_file(run.path)))
    student = networks.teacher(
        replace(recipe, teacher=spec, methods={}),
        (),
        tasks.find(recipe.task, recipe.training),
        view_size=run.environment.get("view_size") or recipe.data.size or build.LARGE,
    )
    assert student is not None
    return student.plain()


def _student_file(path: Path) -> Path:
    if not (path / "student.safetensors").is_file():
        raise RunError(f"{path} holds no student yet; continue it with --resume.")
    return path / "student.safetensors"
