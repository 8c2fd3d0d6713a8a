"""How many runs of a comparison are trained at once, on what, and why."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from understudy.comparison.arms import Needs
from understudy.distillation.device_names import find_device
from understudy.errors import RecipeError
from understudy.experiment.run_directory import Run
from understudy.training import hardware, threads

_PROCESS = 1_000_000_000
"""Bytes that a run is taken to need besides its images and weights, before one was measured."""


@final
@dataclass(frozen=True)
class JobCount:
    """How many runs are trained at once.

    Attributes:
        jobs: Runs at once.
        gpus: Values of `CUDA_VISIBLE_DEVICES`, one for every GPU; empty on a CPU.
        reason: All of it in a sentence.
    """

    jobs: int
    gpus: Sequence[str]
    reason: str


def choose(
    jobs: int | None,
    count: int | None,
    needs: Needs,
    *,
    device: str | None,
    runs: Sequence[Run],
) -> JobCount:
    """Return the number of runs at once: that of the user, or as many as the machine has room for.

    That is one for every GPU, or on a CPU one for every two cores, but at least two, if the student
    is small; otherwise one.

    Args:
        jobs: Number of the user; None for a choice.
        count: Threads of a run, of the user; None for a choice.
        needs: What a run needs.
        device: Name of a device, or None for the best ones.
        runs: All runs; a finished one tells how much memory each takes.

    Raises:
        RecipeError: A number is below 1.
    """
    if jobs is None and hardware.is_grouped():
        jobs = 1  # of all processes together
    if jobs is not None and jobs < 1:
        raise RecipeError(f"--jobs cannot be {jobs}: at least one run is trained at a time.")
    if gpus := _gpus(device):
        return JobCount(jobs or len(gpus), gpus, _on_gpus(jobs or len(gpus), len(gpus)))
    if find_device(device).type == "mps":
        return JobCount(jobs or 1, [], f"{_at_once(jobs or 1)} on the GPU of this Mac (--jobs)")
    left = sum(not run.finished for run in runs)
    room, memory = _room(needs, runs)
    by_cores = _by_cores(needs)
    chosen = jobs or max(1, min(by_cores, room, left))
    scarce = f"; {memory}" if jobs is None and room < min(by_cores, left) else ""
    return JobCount(chosen, [], f"{_on_cpu(chosen, count, needs)}{scarce} (--jobs, --threads)")


def _by_cores(needs: Needs) -> int:
    cores = hardware.cores()
    return max(cores // 2, min(cores, 2)) if needs.macs <= threads.SMALL else 1


def _room(needs: Needs, runs: Sequence[Run]) -> tuple[int, str]:
    """Return how many runs the free memory holds, and the sentence that says so."""
    measured = [run.evaluation["memory_mb"] for run in runs if run.finished]
    known = max((mb for mb in measured if mb is not None), default=None)
    each = known * 1e6 if known else needs.bytes + _PROCESS
    free = hardware.available_memory()
    words = f"{free / 1e9:.1f} GB of memory are free, and a run takes about {each / 1e9:.1f} GB"
    return max(1, int(free / each)), words


def _on_cpu(jobs: int, count: int | None, needs: Needs) -> str:
    each, why = _threads(count, needs)
    cores = hardware.cores()
    return (
        f"{_at_once(jobs)} on {cores} core{'s' * (cores != 1)}, each with "
        f"{threads.in_words(each)}, as {why}"
    )


def _threads(count: int | None, needs: Needs) -> tuple[int, str]:
    """Return the threads of a run, and why."""
    if count is not None:
        return count, "asked for"
    if from_user := threads.of_user():
        return from_user, "OMP_NUM_THREADS is set"
    size = f"{needs.macs / 1e6:,.3g} million multiply-adds per view"
    if needs.macs <= threads.SMALL:
        return 1, f"the student is small ({size})"
    return hardware.cores(), f"the student is large ({size})"


def _on_gpus(jobs: int, gpus: int) -> str:
    share = "one on each GPU" if jobs <= gpus else f"{jobs} on {gpus} GPU{'s' * (gpus != 1)}"
    return f"{_at_once(jobs)}, {share} (--jobs)"


def _at_once(jobs: int) -> str:
    return "One run at a time" if jobs == 1 else f"{jobs} runs at once"


def _gpus(device: str | None) -> list[str]:
    """Return the GPUs to use, as `CUDA_VISIBLE_DEVICES` names them; none on a CPU.

    All of this process, or its share if torchrun started several; or the one that the user named.
    """
    place = find_device(device)
    if place.type != "cuda":
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    count = torch.cuda.device_count()
    visible = (names or [str(number) for number in range(count)])[:count]
    if device and ":" in device:
        return [visible[place.index]]
    first = int(os.environ.get("LOCAL_RANK", "0"))
    return visible[first :: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))] or visible
