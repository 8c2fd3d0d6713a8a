"""Devices, processes and precision of a run: what a recipe asks for, on the machine there is."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from understudy import machine
from understudy.errors import RecipeError
from understudy.recipe import Training


def accelerator(
    training: Training,
    device: str | None,
    *,
    trackers: Sequence[str] = (),
    folder: Path | None = None,
) -> Accelerator:
    """Devices, processes and precision of a run, and what its numbers are sent to.

    Raises:
        RecipeError: A tracker is not installed, or fp16 is asked of a CPU.
    """
    for tracker in trackers:
        if find_spec(tracker) is None:
            raise RecipeError(
                f"The tracker {tracker} is not installed; install it with: "
                f"pip install 'understudy[{tracker}]'."
            )
    # Accelerate keeps one state per process for life; a second run may want another precision.
    AcceleratorState._reset_state()
    cpu = device == "cpu" or not torch.cuda.is_available()
    return Accelerator(
        cpu=cpu,
        mixed_precision=_precision(training, cpu=cpu),
        log_with=list(trackers) or None,
        project_dir=folder,
    )


def dtype_of(accelerator: Accelerator) -> torch.dtype | None:
    """What networks compute in, if not in the type of their weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)


def _precision(training: Training, *, cpu: bool) -> str:
    """The precision as accelerate calls it."""
    if training.precision == "fp16" and cpu:
        raise RecipeError(
            "A CPU does not train in fp16; set training.precision to bf16 or fp32, or use a GPU."
        )
    if training.precision == "auto":
        return "bf16" if machine.has_bf16(cpu=cpu) else "no"
    return "no" if training.precision == "fp32" else training.precision
