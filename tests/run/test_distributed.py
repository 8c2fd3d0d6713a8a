"""Several processes give what one gives, also when they are killed or told to stop."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import Fresh, ranks, until
from tests.support.small_runs import distillation
from understudy.config.recipe import Recipe
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

METHODS: dict[str, Any] = {"lshfm": {"hashes": 64, "selective": True}, "nd": {}, "pefd": {}}


def changed(teacher: Path) -> Recipe:
    # 27 of 200 images are left for the last batch: 14 for one process, 13 for the other.
    changes = {"methods": METHODS | {"kd": {}}, "training.batch": 43, "training.lr": 0.01}
    return Recipe.load(distillation(teacher), changes)


@pytest.fixture
def wanted(teacher: Path) -> Recipe:
    return changed(teacher)


@pytest.fixture(scope="module")
def alone(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The recipe trained by one process."""
    return train(changed(teacher), out=tmp_path_factory.mktemp("alone"), device="cpu")


def command(wanted: Recipe, out: Path, *flags: str) -> list[str]:
    """How the recipe is run, as after `python`."""
    path = out.with_suffix(".yaml")
    path.write_text(wanted.to_yaml())
    # The doctor would stop for this teacher.
    flags = ("--device", "cpu", "--no-doctor", *flags)
    return ["-m", "understudy", "distill", str(path), "--out", str(out), *flags]


def two(wanted: Recipe, out: Path, *flags: str) -> list[Fresh]:
    """The recipe started on two processes."""
    return ranks(2, *command(wanted, out, *flags))


def torchrun(wanted: Recipe, out: Path) -> subprocess.Popen[str]:
    """The recipe started on two processes by torchrun."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [sys.executable, *words, *command(wanted, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[Fresh]) -> None:
    """Wait until all have ended well."""
    for process in processes:
        process.finish()


def same(one: Run, other: Run) -> None:
    """Whether two runs agree up to the order of additions."""
    for alone, together in zip(one.history, other.history, strict=True):
        assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-6)
        assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-5)
    top1 = one.evaluation["metrics"]["top1"]
    assert other.evaluation["metrics"]["top1"] == pytest.approx(top1, abs=0.1)


def test_two_processes_fill_one_bank(wanted: Recipe, alone: Run, tmp_path: Path) -> None:
    bank = {"bank.path": str(tmp_path / "bank"), "bank.codes": True}
    banked = Recipe.load(wanted, bank)
    for name in ("filling", "replaying"):
        finish(two(banked, tmp_path / name))
        same(alone, Run(tmp_path / name))


def test_two_processes_equal_one(wanted: Recipe, alone: Run, tmp_path: Path) -> None:
    process = torchrun(wanted, tmp_path / "two")
    _, said = process.communicate()
    assert process.returncode == 0, said
    run = Run(tmp_path / "two")
    assert {p["rank"] for p in run.environment["processes"]} == {0, 1}
    assert len({p["pid"] for p in run.environment["processes"]}) == 2
    same(alone, run)


def test_two_processes_mix_the_same_images(wanted: Recipe, tmp_path: Path) -> None:
    keys = {"data.mixup": 0.8, "data.cutmix": 1.0, "training.label_smoothing": 0.1}
    mixed = Recipe.load(wanted, keys)
    one = train(mixed, out=tmp_path / "one", device="cpu")
    finish(two(mixed, tmp_path / "two"))
    same(one, Run(tmp_path / "two"))


MEMORIES = """
import sys
from pathlib import Path
import torch
from understudy.config.recipe import Recipe
from understudy.experiment.runner import Runner

path, out = map(Path, sys.argv[1:])
run = Runner.start(out, Recipe.load(path), device="cpu")
run.finish()
kept = run.experiment.distiller.trainable.methods.state_dict()
torch.save(kept, out / f"{run.accelerator.process_index}.pt")
sent = set(run.trainer._trainable.named_module_buffers)
assert sent, "the statistics of the student differ between processes"
assert all(name.startswith("student.") for name in sent), sent
"""


def test_what_methods_measure_is_sent_once_and_stays_alike(wanted: Recipe, tmp_path: Path) -> None:
    methods = {"crd": {"dim": 8, "negatives": 32}, "lshfm": {"hashes": 64}, "nd": {}}
    keys = {"methods": methods, "training.epochs": 1}
    path, script = tmp_path / "recipe.yaml", tmp_path / "memories.py"
    path.write_text(Recipe.load(wanted, keys).to_yaml())
    script.write_text(MEMORIES)
    finish(ranks(2, script, path, tmp_path / "run"))
    first, second = (torch.load(tmp_path / f"run/{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("crd.student_memory", "crd.teacher_memory", "crd.z", "lshfm.hash_bias"):
        assert first[name].any(), name
        assert torch.equal(first[name], second[name]), name


def test_killed_or_stopped_processes_continue_as_if_nothing_had_happened(
    wanted: Recipe, tmp_path: Path
) -> None:
    keys = {"training.epochs": 6, "training.checkpoint_minutes": 0.0, "data.validation": 0.05}
    wanted = Recipe.load(wanted, keys)
    one = train(wanted, out=tmp_path / "one", device="cpu")
    out = tmp_path / "two"

    killed = two(wanted, out)
    until((out / "last" / "previous.ckpt").exists, killed[0])
    killed[1].signal(signal.SIGKILL)
    assert all(process.wait() != 0 for process in killed), "nobody told the other one"
    assert not Run(out).finished

    (out / "last" / "previous.ckpt").unlink()
    stopped = two(wanted, out, "--resume")
    until((out / "last" / "previous.ckpt").exists, stopped[0])
    stopped[1].signal(signal.SIGTERM)  # only one of both is told
    assert all(process.wait() != 0 for process in stopped)
    said = "".join(process.err for process in stopped)
    assert "Stopped by SIGTERM" in said
    assert "Stopped by another process" in said
    places = {line.partition(" in epoch ")[2] for line in said.splitlines() if "Stopped" in line}
    assert len(places) == 1, places
    state = torch.load(out / "last" / "state.ckpt", weights_only=True)
    (place,) = places
    position = state["position"]
    assert place.startswith(f"{position['epoch'] + 1}, step {position['step']};")
    assert not Run(out).finished

    finish(two(wanted, out, "--resume"))
    same(one, Run(out))
