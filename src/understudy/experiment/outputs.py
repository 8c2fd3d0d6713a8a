"""Outputs of networks over a set of images, and which of a teacher's a student is compared with."""

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from understudy.batch import Batch
from understudy.distillation.memory_parts import MemoryParts
from understudy.errors import Diverged, NetworkError
from understudy.features import Features
from understudy.models.base import Wrapped
from understudy.tasks import Outputs, Task
from understudy.training.batch_norm import enough_values
from understudy.training.finite import not_finite


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
        Diverged: An output or a weight of the student is NaN or infinite.
        NetworkError: One of the teacher is, or a network normalises single values.
    """
    training = network.training
    network.eval()
    compute = replay or network.outputs
    in_parts = MemoryParts("evaluating")
    with enough_values(f"{role} {network.name}"):
        parts = [
            outputs
            for every_size in batches
            # What a detector finds in an image depends on the padding that a larger one brings.
            for batch in every_size.by_size()
            for outputs in in_parts(batch, lambda part: _outputs(compute, part, accelerator, task))
        ]
    network.train(training)
    every = task.concatenate(gather_object(parts) if accelerator.num_processes > 1 else parts)
    _check_finite(network, every, role)
    return every


def _check_finite(network: Wrapped, outputs: Outputs, role: str) -> None:
    """Refuse to measure NaN: a detector leaves out boxes of NaN, and would have an AP of 0."""
    computed = (x for key, x in outputs.items() if not key.startswith("true_"))
    bad = sum(int((~x.isfinite()).sum()) for x in computed if x.is_floating_point())
    if weights := not_finite(network):
        what = f"Weights of the {role} {network.name} are NaN or infinite ({weights[0]})"
    elif bad:
        what = f"Outputs of the {role} {network.name} hold {bad:,} values that are NaN or infinite"
    else:
        return
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
    task: Task,
    student: Wrapped,
    teacher: Wrapped | None,
    outputs: Outputs | None,
    *,
    scores: bool = True,
) -> Outputs | None:
    """Return the teacher's outputs that a student is compared with; None if there are none.

    If the classes are others, or the student's scores of classes are those of an untrained
    classifier, boxes are not compared, and of whole images only features.

    Args:
        task: Says what is compared.
        student: The student.
        teacher: Its teacher.
        outputs: Outputs of the teacher.
        scores: False if nothing trained the student's scores; see `Method.gives_scores`.
    """
    if outputs is None or (scores and student.same_classes(teacher)):
        return outputs
    if task.truth == "objects":
        return None
    return {name: x for name, x in outputs.items() if name != "logits"}
