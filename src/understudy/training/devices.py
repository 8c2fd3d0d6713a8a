"""Devices, processes and precision of a run: a recipe's `auto` values resolved for this machine."""

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

from understudy.config.extras import installation
from understudy.config.recipe import Training
from understudy.distillation.device_names import find_device
from understudy.distillation.distiller import Distiller, Trainable
from understudy.errors import RecipeError
from understudy.methods import Method
from understudy.models import Network
from understudy.models.base import Wrapped
from understudy.models.detection import Detector
from understudy.training import hardware
from understudy.training.threads import in_words

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@final
@dataclass(frozen=True)
class ComputeSettings:
    """Resolved compute settings: the recipe's values, with `auto` filled in for this machine.

    Attributes:
        device: Device of the networks, such as `cpu` or `cuda`.
        precision: Arithmetic of the student and the methods.
        teacher_precision: Arithmetic of the teacher.
        channels_last: True if images and convolutions have the memory format `channels_last`.
        compile: True if the forward passes are compiled.
        graphs: True if steps are captured as CUDA graphs, where that is possible.
        threads: Threads of the CPU.
    """

    device: str
    precision: Precision
    teacher_precision: Precision
    channels_last: bool
    compile: bool
    graphs: bool
    threads: int

    @property
    def teacher_dtype(self) -> torch.dtype | None:
        """Dtype of the teacher's forward pass; None for that of its weights."""
        return _DTYPES.get(self.teacher_precision)

    @property
    def dtype(self) -> torch.dtype | None:
        """Dtype of the student's forward pass; None for that of its weights."""
        return _DTYPES.get(self.precision)

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of images and convolutions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def apply(self, distiller: Distiller) -> None:
        """Move student, teachers and methods to their device, memory format and precision."""
        torch.set_num_threads(self.threads)
        if self.device == "cpu":
            hardware.keep_memory()
        distiller.to(device=torch.device(self.device))
        distiller.to(memory_format=self.memory_format)
        # Last: once frozen, the teacher may be read from a copy that no longer moves.
        for each in distiller.distillations:
            each.teacher.freeze(self.teacher_dtype)

    def __str__(self) -> str:
        differ = self.teacher_precision != self.precision
        parts = (
            self.device,
            self.precision + (f" (teacher {self.teacher_precision})" if differ else ""),
            "channels last" if self.channels_last else "channels first",
            "compiled" if self.compile else "not compiled",
            *([in_words(self.threads)] if self.device == "cpu" else []),
        )
        keys = ("precision", "teacher_precision", "channels_last", "compile")
        flags = ", ".join(f"--training.{key}" for key in keys)
        return f"on {', '.join(parts)} (flags: {flags})"


def resolve(
    training: Training, distiller: Distiller, device: torch.device, *, threads: int | None = None
) -> ComputeSettings:
    """Return the recipe's values; for `auto`, what is fastest on a device without harm to training.

    Args:
        training: Has the recipe's values.
        distiller: Networks that are to be trained and read.
        device: Where they are.
        threads: Threads of the CPU; None for those of this process.

    Raises:
        RecipeError: The recipe asks a CPU for fp16, or for channels last of layers whose gradients
            are computed outside their memory.
    """
    cpu = device.type == "cpu"
    precision = _precision(training, distiller.student, cpu=cpu)
    # Channels last gains nothing in fp32 on a GPU; on a CPU a tenth, and a quarter in bf16.
    faster = cpu or precision != "fp32"
    has_convolutions = any(isinstance(module, nn.Conv2d) for module in distiller.modules())
    damaged = cpu and _damages_memory(distiller.student)
    channels_last = training.channels_last
    if damaged and channels_last:
        raise RecipeError(
            "On a CPU, torch writes outside its memory when it computes the gradient of a 1×1 "
            "convolution with stride 2 and fewer than 16 input channels in channels last, and the "
            "student has one for large maps: leave training.channels_last out, or set it to false."
        )
    return ComputeSettings(
        device=str(device),
        precision=precision,
        teacher_precision=_teacher_precision(training, distiller, cpu=cpu),
        channels_last=(
            faster and has_convolutions and not damaged if channels_last is None else channels_last
        ),
        compile=training.compile,
        graphs=training.graphs and device.type == "cuda",
        threads=threads or torch.get_num_threads(),
    )


_SAFE_SIDE = 40
"""Side in pixels of images of which no map is so large that torch computes outside its memory."""


def _damages_memory(student: Wrapped) -> bool:
    """Return True for a student of which a CPU computes a gradient outside its memory.

    It is that of a dense 1×1 convolution with stride 2 and fewer than 16 input channels, in
    channels last, for maps of 46 pixels and more. Seen with torch 2.14.1: runs were ended by
    SIGSEGV or SIGABRT.
    """
    if isinstance(student, Network) and max(student.example_size) <= _SAFE_SIDE:
        return False
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.weight.requires_grad
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 16
        and layer.groups == 1
        for layer in student.modules()
    )


def accelerator(
    training: Training,
    device: str | None,
    *,
    student: nn.Module,
    trackers: Sequence[str] = (),
    folder: Path | None = None,
) -> Accelerator:
    """Return the `Accelerator` of a run: its device, processes, precision and trackers.

    Args:
        training: May name the precision; otherwise it is resolved for the student and the device.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        student: Network to be trained, or evaluated.
        trackers: Names of the experiment trackers that metrics are sent to.
        folder: Where trackers write.

    Raises:
        RecipeError: There is no such device, a tracker is not installed, or fp16 is asked of a
            CPU.
    """
    for tracker in trackers:
        if find_spec(tracker) is None:
            raise RecipeError(
                f"The tracker {tracker} is not installed; install it with: {installation(tracker)}."
            )
    # Accelerate keeps one state per process for life; a second run may want another precision.
    AcceleratorState._reset_state()
    cpu = processes(device).device.type == "cpu"
    precision = _precision(training, student, cpu=cpu)
    return Accelerator(
        cpu=cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(trackers) or None,
        project_dir=folder,
    )


def processes(device: str | None) -> PartialState:
    """Return the state of this process (its rank, and of how many), before anything is built.

    Args:
        device: As for `accelerator`.

    Raises:
        RecipeError: There is no such device, or each of several processes has one already.
    """
    chosen = find_device(device)
    state = PartialState(cpu=chosen.type == "cpu")
    if state.num_processes == 1:
        # It would keep the device of the first run of this process, and knows no number.
        state.device = chosen
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    elif chosen.index is not None:
        raise RecipeError(
            f"The device {device!r} is one for {state.num_processes} processes, of which torchrun "
            "gives each its own: leave --device out, and choose by CUDA_VISIBLE_DEVICES."
        )
    return state


def share_measured(trainable: Trainable) -> None:
    """Broadcast the buffers of methods once, and keep DistributedDataParallel from doing it again.

    It would send them in every step, and they stay equal in all processes. Directions of hashes or
    a memory of all images take from tens to hundreds of megabytes.
    """
    measured = {
        f"{path}.{name}": buffer
        for path, method in trainable.named_modules()
        if isinstance(method, Method)
        for name, buffer in method.named_buffers(recurse=False)
    }
    broadcast(list(measured.values()))
    # The one way that torch offers; it sets an attribute that DistributedDataParallel reads.
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(trainable, list(measured))  # type: ignore[no-untyped-call]


def _precision(training: Training, student: nn.Module, *, cpu: bool) -> Precision:
    """Return the arithmetic of the student."""
    if training.precision == "fp16" and cpu:
        raise RecipeError(
            "A CPU does not train in fp16; set training.precision to bf16 or fp32, or use a GPU."
        )
    if training.precision != "auto":
        return training.precision
    # Feature pyramids of small images end in maps of a single pixel, for which a CPU's strided
    # bf16 convolutions return uninitialised gradients: seen with torch 2.15.
    return "fp32" if cpu and isinstance(student, Detector) else _fastest(cpu=cpu)


def _teacher_precision(training: Training, distiller: Distiller, *, cpu: bool) -> Precision:
    """Return the arithmetic of the teacher: the recipe's, that of the student, or the fastest.

    Where a detector is trained in fp32, its teacher may compute in less: a bank of detectors stores
    the maps as they were computed.
    """
    if training.teacher_precision != "auto":
        return training.teacher_precision
    detector_fp32 = training.precision == "fp32" and distiller.trainable.task.truth == "objects"
    follows_student = training.precision != "auto" and not detector_fp32
    if follows_student or not distiller.distillations:
        return _precision(training, distiller.student, cpu=cpu)
    return _fastest(cpu=cpu)


def _fastest(*, cpu: bool) -> Precision:
    """Return bf16 where it is fast."""
    return "bf16" if hardware.has_bf16(cpu=cpu) else "fp32"
