"""Queries of this machine: its processor, memory, and support of bfloat16."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any, final

import psutil
import torch

from understudy import __version__

# Of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def describe() -> dict[str, Any]:
    """Return processor, GPUs and versions, for `environment.json` of a run."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": ", ".join([*gpus, f"{cores()} cores {_processor()}"]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "understudy": __version__,
        "command": sys.argv,
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    # Where the system does not tell, all there are.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = (_words(_CGROUP / "cpu.max") or "max").partition(" ")
    # A container may have the time of fewer cores than it sees.
    share = -(-int(quota) // int(period)) if quota.isdigit() and period.isdigit() else allowed
    return max(1, min(allowed or 1, share or 1))


def has_bf16(*, cpu: bool) -> bool:
    """Return True if bfloat16 is fast on this machine: on a CPU only with AVX512-BF16 or AMX."""
    if not cpu:
        return torch.cuda.is_available() and bool(
            torch.cuda.is_bf16_supported(including_emulation=False)
        )
    flags = _field(_CPUINFO, "flags").split()
    # Other CPUs emulate it in fp32.
    return "avx512_bf16" in flags or "amx_bf16" in flags


def available_memory() -> int:
    """Return the bytes of memory that are available, to a container those of its limit."""
    available = _field(_MEMINFO, "MemAvailable")
    limit = _words(_CGROUP / "memory.max")  # of a container
    if available:
        whole = int(available.split()[0]) * 1024
        return min(whole, int(limit)) if limit.isdigit() else whole
    return int(psutil.virtual_memory().available)


def keep_memory() -> None:
    """Keep freed memory in this process, for the tensors of the next step.

    By default glibc returns large blocks to the system and asks for fresh pages, which the system
    fills with zeros: 12 to 19 % of a training step of resnet8x4 on a CPU.
    """
    _return_memory_beyond(2**30)


def release_memory() -> None:
    """Undo `keep_memory`: set glibc's thresholds to the values that they reach in training."""
    _return_memory_beyond(2**25)


def _return_memory_beyond(size: int) -> None:
    """Return blocks above a size to the system at once, others when twice that size is unused."""
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, size)
        libc.mallopt(_TRIM_THRESHOLD, min(2 * size, 2**31 - 1))  # mallopt takes an int


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def is_first_process() -> bool:
    """Return True if this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def is_grouped() -> bool:
    """Return True if torchrun started this process, to train together with others."""
    return "RANK" in os.environ


@final
class PeakMemory:
    """Measures peak memory from its construction on: of a GPU, otherwise of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known = device.type == "cuda" or _restart_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def mb(self) -> float | None:
        """Peak memory in MB; None where the system only knows the peak of the whole process."""
        if not self._known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        return float(_field(_STATUS, "VmHWM").split()[0]) * 1024 / 1e6


def _restart_peak() -> bool:
    """Reset the peak memory of this process, which Linux can; return False where it failed."""
    if libc := _glibc():
        libc.malloc_trim(0)  # memory that earlier runs freed does not count
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return bool(_field(_STATUS, "VmHWM"))


def _processor() -> str:
    return _field(_CPUINFO, "model name") or platform.processor() or platform.machine()


def _words(path: Path) -> str:
    """Return the content of a file of the system; "" without it."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _field(path: Path, key: str) -> str:
    """Return the value of a key in a file of lines `key: value`; "" without the file or the key."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
