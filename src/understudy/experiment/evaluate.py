"""Measure networks: their outputs over a set of images, and the trained student of a run."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment import build
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
    replay: Callable[[Batch], Features] | None = None,
) -> Outputs:
    """Outputs of a network in evaluation mode, from all processes, in the order of the index.

    Args:
        network: Student or teacher.
        batches: This process's share of the images.
        accelerator: Devices, processes and precision.
        task: Says what is kept.
        replay: Gives the network's outputs in its stead.
    """
    training = network.training
    network.eval()
    give = replay or network.outputs
    parts = [_outputs(give, batch, accelerator, task) for batch in batches]
    network.train(training)
    return task.concatenate(gather_object(parts) if accelerator.num_processes > 1 else parts)


def _outputs(
    give: Callable[[Batch], Features], batch: Batch, accelerator: Accelerator, task: Task
) -> Outputs:
    batch = batch.to(accelerator.device, torch.contiguous_format)
    with accelerator.autocast():
        kept = task.collect(give(batch), batch)
    return {name: x.float().cpu() if x.is_floating_point() else x.cpu() for name, x in kept.items()}


def comparable(task: Task, student: Wrapped, teacher: Wrapped | None) -> bool:
    """Return True if there is a fidelity to a teacher: boxes need classes of the same numbers."""
    return student.same_classes(teacher) if task.truth == "objects" else teacher is not None


def evaluate(
    run: str | Path, overrides: Mapping[str, Any] | None = None, *, device: str | None = None
) -> Evaluation:
    """Measure the trained student of a run, on its own test images or on others.

    Args:
        run: A run directory.
        overrides: Dotted keys of the recipe to replace, such as `data.root`.
        device: As for `train`.

    Raises:
        UnderstudyError: There is no student in the directory, or it was trained for other classes.
    """
    path = Path(run)
    recipe = Recipe.load(Run(path).recipe, overrides)
    if not (path / "student.safetensors").is_file():
        raise RunError(f"{path} holds no student yet; continue it with --resume.")
    trained = build.trained_student(recipe, path / "student.safetensors")
    devices = accelerator(recipe.training, device, student=trained.student)
    outputs = [
        collect(
            network.to(devices.device),
            trained.test.single_pass(augmented=False),
            devices,
            trained.task,
        )
        for network in (trained.student, trained.teacher)
        if network is not None
    ]
    close = comparable(trained.task, trained.student, trained.teacher)
    return trained.task.evaluate(outputs[0], outputs[1] if close else None)
