"""Refuse weights of a student that are NaN or infinite, in which no loss of an epoch tells."""

import torch
from accelerate import Accelerator
from torch import nn

from understudy.errors import Diverged

_STATISTICS = ("running_mean", "running_var")


def check_weights(
    student: nn.Module, average: nn.Module | None, epoch: int, accelerator: Accelerator
) -> None:
    """Stop all processes if a weight of the student, or of its moving average, is not finite.

    Args:
        student: Network that is trained.
        average: Its moving average; None without one.
        epoch: Number of the epoch, from 0, for the error.
        accelerator: Devices and processes.

    Raises:
        Diverged: Names the first such weight.
    """
    bad = {"student": not_finite(student)}
    if average is not None:
        bad["student's moving average"] = not_finite(average)
    if accelerator.num_processes > 1:
        # Running statistics differ between processes, which must stop together.
        counts = torch.tensor([len(names) for names in bad.values()], device=accelerator.device)
        of_all = accelerator.reduce(counts).tolist()
        for (whose, names), count in zip(bad.items(), of_all, strict=True):
            bad[whose] = names or ["in another process"] * bool(count)
    for whose, names in bad.items():
        if names:
            raise Diverged(
                f"A weight of the {whose} became NaN or infinite in epoch {epoch + 1} "
                f"({names[0]}). Lower training.lr, or set training.clip."
            )


@torch.no_grad()
def not_finite(module: nn.Module) -> list[str]:
    """Return the names of parameters and running statistics that are NaN or infinite somewhere.

    Other buffers are left out: a mask may well hold −∞. On a GPU, this waits once.
    """
    tensors = dict(module.named_parameters()) | {
        name: x for name, x in module.named_buffers() if name.endswith(_STATISTICS)
    }
    floats = {name: x for name, x in tensors.items() if x.is_floating_point()}
    if not floats:
        return []
    finite = torch.stack([x.isfinite().all() for x in floats.values()]).tolist()
    return [name for name, good in zip(floats, finite, strict=True) if not good]
