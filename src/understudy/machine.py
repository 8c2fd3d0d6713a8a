"""What machine this is, and what it can do."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


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
    flags = _cpuinfo("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far in MB: of the device for a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
