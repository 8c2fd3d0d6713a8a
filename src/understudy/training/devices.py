"""Devices, processes and precision of a run: what a recipe asks for, on the machine there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, final

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from understudy.config.recipe import Training
from understudy.distillation.distiller import Distiller, Trainable
from understudy.errors import RecipeError
from understudy.methods import Method
from understudy.models.detection import Detector
from understudy.training import hardware

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@final
@dataclass(frozen=True)
class Choices:
    """How a run computes: what the recipe says, and the machine decides where it says nothing."""

    device: str
    precision: Precision
    teacher_precision: Precision
    channels_last: bool
    compile: bool
    graphs: bool

    @property
    def teacher_dtype(self) -> torch.dtype | None:
        """What the teacher computes in, if not in the type of its weights."""
        return _DTYPES.get(self.teacher_precision)

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of images and convolutions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, distiller: Distiller) -> None:
        """Put student, teacher and methods where and how they compute."""
        if self.device == "cpu":
            hardware.keep_memory()
        distiller.to(device=torch.device(self.device))
        distiller.to(memory_format=self.layout)
        if distiller.teacher is not None:
            distiller.teacher.settle(self.teacher_dtype)

    def __str__(self) -> str:
        own = self.teacher_precision != self.precision
        parts = (
            self.device,
            self.precision + (f" (teacher {self.teacher_precision})" if own else ""),
            "channels last" if self.channels_last else "channels first",
            "compiled" if self.compile else "not compiled",
        )
        keys = "precision, teacher_precision, channels_last, compile"
        return f"on {', '.join(parts)} (set training.{{{keys}}} to choose)"


def choose(training: Training, distiller: Distiller, device: torch.device) -> Choices:
    """What is fastest on a device without changing training, unless the recipe says otherwise."""
    cpu = device.type == "cpu"
    precision = _precision(training, distiller.student, cpu=cpu)
    # A GPU's fp32 convolutions gain nothing by it; a CPU's gain a tenth, and bf16's a quarter.
    faster = cpu or precision != "fp32"
    convolves = any(isinstance(module, nn.Conv2d) for module in distiller.modules())
    asked = training.channels_last
    return Choices(
        device=str(device),
        precision=precision,
        teacher_precision=_teacher_precision(training, distiller, cpu=cpu),
        channels_last=faster and convolves if asked is None else asked,
        compile=training.compile,
        graphs=training.graphs and not cpu,
    )


def accelerator(
    training: Training,
    device: str | None,
    *,
    student: nn.Module,
    trackers: Sequence[str] = (),
    folder: Path | None = None,
) -> Accelerator:
    """Devices, processes and precision of a run, and what its numbers are sent to.

    Args:
        training: Says what is wanted.
        device: `cpu`, or None for the best device there is.
        student: Network to be trained, or measured.
        trackers: Names of what the numbers are sent to.
        folder: Where trackers write.

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
    cpu = _on_cpu(device)
    precision = _precision(training, student, cpu=cpu)
    return Accelerator(
        cpu=cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(trackers) or None,
        project_dir=folder,
    )


def processes(device: str | None) -> PartialState:
    """Which process this is, of how many, before anything is built.

    Args:
        device: As for `accelerator`.
    """
    return PartialState(cpu=_on_cpu(device))


def share_measured(trainable: Trainable) -> None:
    """Send what methods measured to all processes once, where it then stays the same.

    DistributedDataParallel would send it again in every step, and directions of hashes or a memory
    of all images take from tens to hundreds of megabytes.
    """
    measured = {
        f"{path}.{name}": buffer
        for path, method in trainable.named_modules()
        if isinstance(method, Method)
        for name, buffer in method.named_buffers(recurse=False)
    }
    broadcast(list(measured.values()))
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(trainable, list(measured))  # type: ignore[no-untyped-call]


def _on_cpu(device: str | None) -> bool:
    return device == "cpu" or not torch.cuda.is_available()


def _precision(training: Training, student: nn.Module, *, cpu: bool) -> Precision:
    """Arithmetic of the student."""
    if training.precision == "fp16" and cpu:
        raise RecipeError(
            "A CPU does not train in fp16; set training.precision to bf16 or fp32, or use a GPU."
        )
    if training.precision != "auto":
        return training.precision
    # Pyramids over small images end in single pixels, of which a CPU's bf16 convolutions with a
    # stride give gradients of memory that nobody wrote: seen with torch 2.15.
    return "fp32" if cpu and isinstance(student, Detector) else _fastest(student, cpu=cpu)


def _teacher_precision(training: Training, distiller: Distiller, *, cpu: bool) -> Precision:
    """Arithmetic of the teacher: as for the student, the fastest or the one that is asked for.

    The teacher of a detector in fp32 may be faster: of boxes no bank could promise the same bits.
    """
    if training.teacher_precision != "auto":
        return training.teacher_precision
    free = training.precision == "fp32" and distiller.trainable.task.truth == "objects"
    if (training.precision != "auto" and not free) or distiller.teacher is None:
        return _precision(training, distiller.student, cpu=cpu)
    return _fastest(distiller.teacher, cpu=cpu)


def _fastest(network: nn.Module, *, cpu: bool) -> Precision:
    """bf16 where the machine is fast in it; a CPU is not where convolutions have groups.

    A step of MobileNetV2 takes twice as long in bf16 there as in fp32, one of ShuffleNetV2 1.7
    times.
    """
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return "bf16" if hardware.has_bf16(cpu=cpu) and not (cpu and grouped) else "fp32"
