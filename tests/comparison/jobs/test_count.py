"""How many runs are trained at once follows from cores, GPUs, memory and the student's size."""

from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.comparison.arms import Needs
from understudy.comparison.jobs import count as job_count
from understudy.comparison.jobs.worker_program import WorkerSetup
from understudy.errors import RecipeError
from understudy.experiment.run_directory import Run
from understudy.training import hardware

SMALL, LARGE = Needs(40_000_000, 10**8), Needs(1_800_000_000, 10**8)
TEN = [Run(Path(f"run{i}")) for i in range(10)]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, 64 GB and no GPU; nothing is set by the user."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    monkeypatch.setattr(hardware, "available_memory", lambda: 64 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def chosen(
    needs: Needs, jobs: int | None = None, threads: int | None = None, **options: Any
) -> job_count.JobCount:
    return job_count.choose(jobs, threads, needs, **{"device": None, "runs": TEN} | options)


@pytest.mark.parametrize(
    ("cores", "needs", "jobs"),
    [(8, SMALL, 4), (3, SMALL, 2), (2, SMALL, 2), (1, SMALL, 1), (8, LARGE, 1), (2, LARGE, 1)],
)
def test_a_cpu_trains_a_small_student_on_every_second_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, needs: Needs, jobs: int
) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: cores)
    assert chosen(needs).jobs == jobs


def test_the_reason_is_said() -> None:
    assert chosen(SMALL).reason == (
        "4 runs at once on 8 cores, each with 1 thread, as the student is small (40 million "
        "multiply-adds per view) (--jobs, --threads)"
    )
    assert "One run at a time on 8 cores, each with 8 threads, as the student is large" in (
        chosen(LARGE).reason
    )
    assert "3 runs at once on 8 cores, each with 2 threads, as asked for" in (
        chosen(LARGE, jobs=3, threads=2).reason
    )


def test_the_environment_says_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "each with 3 threads, as OMP_NUM_THREADS is set" in chosen(SMALL).reason


def test_no_more_than_memory_holds_and_runs_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(SMALL, runs=TEN[:3]).jobs == 3
    monkeypatch.setattr(hardware, "available_memory", lambda: 2_300_000_000)
    scarce = chosen(SMALL)
    assert scarce.jobs == 2
    assert "; 2.3 GB of memory are free, and a run takes about 1.1 GB" in scarce.reason
    assert chosen(SMALL, jobs=5).jobs == 5, "the user decides"


def test_one_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    both = chosen(LARGE)
    assert (both.jobs, both.gpus) == (2, ["0", "1"])
    assert both.reason == "2 runs at once, one on each GPU (--jobs)"
    assert "4 runs at once, 4 on 2 GPUs" in chosen(SMALL, jobs=4).reason
    assert chosen(SMALL, device="cuda:1").gpus == ["1"]
    assert chosen(SMALL, device="cpu").gpus == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert chosen(SMALL).gpus == ["5", "7"]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert chosen(SMALL, jobs=2).gpus == ["7"], "torchrun's share of this process"
    assert chosen(SMALL).jobs == 1, "of all processes together"


def test_a_worker_is_of_no_group_and_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "GROUP_RANK")
    for name in (*group, "TORCHELASTIC_RUN_ID", "KEPT"):
        monkeypatch.setenv(name, "1")
    worker = WorkerSetup("cuda:5", "auto").on("5")
    assert not worker.environment.keys() & {*group, "TORCHELASTIC_RUN_ID"}
    assert worker.environment["KEPT"] == "1"
    assert worker.environment["CUDA_VISIBLE_DEVICES"] == "5"
    assert worker.device == "cuda"
    assert WorkerSetup("cpu", 1).on(None).device == "cpu"


@pytest.mark.parametrize("jobs", [0, -1])
def test_less_than_one_is_refused(jobs: int) -> None:
    with pytest.raises(RecipeError, match=f"--jobs cannot be {jobs}: at least one"):
        chosen(SMALL, jobs=jobs)


def test_a_container_has_the_cores_and_the_memory_of_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the machine that the other tests make up
    cores, memory = hardware.cores(), hardware.available_memory()
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.cores() == cores
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert hardware.cores() == 1
    assert hardware.available_memory() == 1_000_000 < memory
