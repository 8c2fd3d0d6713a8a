"""What machine this is, and what it can do."""

import ctypes
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch

# Of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")


def describe() -> dict[str, Any]:
    """Processor, accelerator and versions, for the record of a run."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": ", ".join([*gpus, f"{cores} cores {_processor()}"]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "understudy": version("understudy"),
        "command": sys.argv,
    }


def has_bf16(*, cpu: bool) -> bool:
    """Whether bfloat16 is fast here: on a CPU only with AVX512-BF16 or AMX."""
    if not cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = _field(_CPUINFO, "flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def available_memory() -> int:
    """Bytes of memory that nobody needs now; all there are where the system does not say."""
    known = _field(_MEMINFO, "MemAvailable")
    if known:
        return int(known.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def keep_memory() -> None:
    """Let this process keep the memory that tensors give back, for the tensors of the next step.

    glibc would hand large blocks to the system and ask for fresh pages, which the system fills with
    zeros: 12 to 19 % of a training step of resnet8x4 on a CPU.
    """
    _give_back_beyond(2**30)


def release_memory() -> None:
    """Undo `keep_memory`: glibc's thresholds are where they settle by themselves in training."""
    _give_back_beyond(2**25)


def _give_back_beyond(size: int) -> None:
    """Blocks above a size go to the system at once, others if twice as much would lie idle."""
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, size)
        libc.mallopt(_TRIM_THRESHOLD, min(2 * size, 2**31 - 1))


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@final
class PeakMemory:
    """The largest memory since this was made: of the device for a GPU, else of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known = device.type == "cuda" or _restart_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def mb(self) -> float | None:
        """In MB; None for a CPU whose system knows only the peak since the process began."""
        if not self._known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        return float(_field(_STATUS, "VmHWM").split()[0]) * 1024 / 1e6


def _restart_peak() -> bool:
    """Make Linux forget the peak of this process; False where that cannot be done."""
    if libc := _glibc():
        libc.malloc_trim(0)  # What runs before this one left is none of its memory.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return bool(_field(_STATUS, "VmHWM"))


def _processor() -> str:
    return _field(_CPUINFO, "model name") or platform.processor() or platform.machine()


def _field(path: Path, key: str) -> str:
    """What stands behind a key in a file of `key: value`; nothing without file or key."""
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
