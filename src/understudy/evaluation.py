"""Outputs of a network over a set of images, from all processes."""

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from understudy.batch import Batch
from understudy.features import Features
from understudy.models.wrapped import Wrapped
from understudy.tasks import Outputs, Task


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
    return task.joined(gather_object(parts) if accelerator.num_processes > 1 else parts)


def _outputs(
    give: Callable[[Batch], Features], batch: Batch, accelerator: Accelerator, task: Task
) -> Outputs:
    batch = batch.to(accelerator.device, torch.contiguous_format)
    with accelerator.autocast():
        kept = task.kept(give(batch), batch)
    return {name: x.float().cpu() if x.is_floating_point() else x.cpu() for name, x in kept.items()}


def comparable(task: Task, student: Wrapped, teacher: Wrapped | None) -> bool:
    """Whether a student can be held against its teacher: boxes need classes of the same numbers."""
    if teacher is None or task.truth != "objects":
        return teacher is not None
    return teacher.num_classes == student.num_classes
