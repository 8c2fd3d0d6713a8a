"""Runs of a comparison that are trained at once give what they give one after the other."""

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.planted_teachers import OPTIONS, clothes, distillation, trained
from tests.support.processes import command_line, until
from tests.support.small_runs import CNN, outcome
from understudy.comparison.compare import compare
from understudy.comparison.result import Comparison
from understudy.config.recipe import Recipe
from understudy.experiment.callback import Callback
from understudy.experiment.run_directory import Run
from understudy.reporting import report, terminal_table

COUNTED = """
import os
from tests.support.plain_cnn import PlainCNN

class Counted(PlainCNN):
    def forward(self, images):
        if not self.training and len(images) > 2:
            with open(os.environ["COUNTED"], "a") as file:
                file.write(f"{len(images)}\\n")
        return super().forward(images)

def factory(num_classes=10):
    return Counted(num_classes, 16, 0.0, False, 0)
"""

LONG = {"training.epochs": 6, "training.checkpoint_minutes": 0.0, "data.images": 100}


class Told(Callback):
    """Collects what a callback is told."""

    def __init__(self) -> None:
        self.runs, self.epochs, self.ended = 0, [], []

    def series(self, runs: int) -> None:
        self.runs = runs

    def epoch(self, record: dict[str, Any]) -> None:
        self.epochs.append((record["run"], record["epoch"]))

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        self.ended.append(name)


def digests(root: Path) -> dict[str, str]:
    """Run → digest of its student."""
    return {
        str(file.parent.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.glob("*/seed*/student.safetensors"))
    }


def without_times(comparison: Comparison) -> list[dict[str, Any]]:
    """The arms without what depends on time."""
    return [{k: v for k, v in arm.items() if k != "cost"} for arm in comparison.arms]


def test_two_at_once_equal_one_after_the_other_and_ask_the_teacher_no_more(
    tiny: Recipe, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tmp_path / "counted.py"
    network.write_text(COUNTED)
    weights = str(teacher / "student.safetensors")
    keys = {"teacher.name": f"{network}:factory", "teacher.weights": weights, "data.seed": 0}
    wanted = Recipe.load(tiny, {**keys, "methods": {"kd": {}, "nd": {}}})
    asked, results, told = {}, {}, Told()
    for jobs in (1, 2):
        monkeypatch.setenv("COUNTED", str(tmp_path / f"counted{jobs}"))
        results[jobs] = compare(
            wanted,
            seeds=[0, 1],
            out=tmp_path / str(jobs),
            device="cpu",
            jobs=jobs,
            threads=1,
            callback=told if jobs == 2 else None,
        )
        asked[jobs] = sum(map(int, (tmp_path / f"counted{jobs}").read_text().split()))
    assert len(digests(tmp_path / "1")) == 6
    assert digests(tmp_path / "2") == digests(tmp_path / "1")
    assert without_times(results[2]) == without_times(results[1])
    assert asked[2] == asked[1] > 400
    names = [f"{arm} seed {seed}" for arm in ("control", "kd", "nd") for seed in (0, 1)]
    assert told.runs == 6
    assert sorted(told.ended) == names
    assert sorted(told.epochs) == [(name, epoch) for name in names for epoch in (1, 2)]
    runs = [Run(tmp_path / "2" / path) for arm in results[2].arms for path in arm["runs"]]
    assert {run.threads for run in runs} == {1}
    workers = {process["pid"] for run in runs for process in run.environment["processes"]}
    assert len(workers) == 2
    assert os.getpid() not in workers


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_teacher_is_said_once_for_all_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, jobs: int
) -> None:
    good = trained(clothes)
    state = load_file(good)
    order = torch.tensor([1, 2, 3, 4, 0, *range(5, 10)])  # half of the classes are mistaken
    state |= {key: state[key][order].contiguous() for key in ("fc.weight", "fc.bias")}
    save_file(state, tmp_path / "teacher.safetensors")
    better = {"student.name": CNN, "student.options": OPTIONS, "student.weights": str(good)}
    short = {"data.images": 50, "training.epochs": 1, "training.batch": 16, "training.lr": 1e-4}
    recipe = distillation(clothes, tmp_path / "teacher.safetensors", **better, **short)
    comparison = compare({}, recipe, seeds=[0, 1], out=tmp_path / "runs", device="cpu", jobs=jobs)
    scores = {x for arm in comparison.arms for x in arm["metrics"]["top1"]}
    assert len(scores) > 1  # so that each run has a sentence of its own
    said = [x.getMessage() for x in caplog.records if "The teacher's own" in x.getMessage()]
    assert len(said) == 1
    assert "below the student" in said[0]


def writer(run: Run) -> int:
    """The process that writes a run; 0 if none does."""
    try:
        return int(json.loads((run.path / ".lock.json").read_text())["pid"])
    except (OSError, ValueError):
        return 0


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_workers_and_parents_continue_as_if_nothing_had_happened(
    tiny: Recipe, tmp_path: Path
) -> None:
    wanted = Recipe.load(tiny, {**LONG, "methods": {"kd": {}}})
    compare(wanted, seeds=[0], out=tmp_path / "whole", device="cpu")
    root, path = tmp_path / "parts", tmp_path / "recipe.yaml"
    path.write_text(wanted.to_yaml())
    words = ["compare", path, "--seeds", "0", "--out", root, "--device", "cpu", "--jobs", "2"]
    words += ["--no-doctor"]  # which would stop for this teacher
    kd = Run(root / "kd" / "seed0")

    # The parent: its workers notice, save and end.
    first = command_line(*words)
    until(lambda: len(kd.history) == 1, first)
    worker = writer(kd)
    first.kill()
    while alive(worker):
        time.sleep(0.01)
    assert (kd.path / "last" / "state.ckpt").is_file()
    assert not kd.finished

    # A worker: the other run goes on, and what came of this one is said everywhere.
    second = command_line(*words)
    until(lambda: writer(kd) not in (0, worker) and len(kd.history) == 2, second)
    os.kill(writer(kd), signal.SIGKILL)
    assert second.wait() == 1
    assert "1 run failed: kd seed 0. The same command continues" in second.err
    killed = "kd failed: seed 0: Its process was killed by SIGKILL"
    comparison = Comparison.load(root)
    assert list(comparison.failed) == ["kd seed 0"]
    assert comparison.arms[1]["verdict"]["sentence"].startswith(killed)
    for file in ("report.html", "report.md"):
        assert killed in (root / file).read_text()
    assert re.search(r"^kd .*failed", second.out, re.MULTILINE)
    assert Run(root / "control" / "seed0").finished

    # A signal to the parent.
    third = command_line(*words)
    until(lambda: writer(kd) != 0 and len(kd.history) == 3, third)
    third.signal(signal.SIGTERM)
    assert third.wait() == 130, third.err
    assert f"every run is saved: continue with `understudy --resume {root}`" in third.err
    assert not kd.finished

    done = compare(wanted, seeds=[0], out=root, device="cpu", jobs=2, resume=True)
    assert not done.failed
    assert outcome(kd) == outcome(Run(tmp_path / "whole" / "kd" / "seed0"))
    assert digests(root) == digests(tmp_path / "whole")


def test_two_starts_on_one_directory_share_its_runs(tiny: Recipe, tmp_path: Path) -> None:
    wanted = Recipe.load(tiny, {**LONG, "methods": {"kd": {}}})
    compare(wanted, seeds=[0, 1], out=tmp_path / "alone", device="cpu")
    path, root = tmp_path / "recipe.yaml", tmp_path / "shared"
    path.write_text(wanted.to_yaml())
    words = ["compare", path, "--seeds", "0", "1", "--out", root, "--device", "cpu", "--jobs", "1"]
    words += ["--no-doctor"]  # which would stop for this teacher
    other = command_line(*words)
    until((root / "control" / "seed0" / "metrics.jsonl").exists, other)
    mine = compare(wanted, seeds=[0, 1], out=root, device="cpu")
    other.finish()
    assert digests(root) == digests(tmp_path / "alone")
    runs = [Run(root / name) for name in digests(root)]
    assert {p["pid"] for run in runs for p in run.environment["processes"]} == {
        os.getpid(),
        other.pid,
    }
    assert without_times(Comparison.load(root)) == without_times(mine)
    assert "is being trained by another process" not in other.err


BROKEN = """
from typing import Any
from understudy.methods.kd import KD

class Broken(KD):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        raise ValueError("no such thing")
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_arm_that_fails_stops_no_other_and_is_shown(
    tiny: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jobs: int,
    log: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "broken_method.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    short = Recipe.load(tiny, {"training.epochs": 1, "data.images": 100})
    methods = {"broken": {"method": "broken_method:Broken"}, "kd": {}}
    wanted = Recipe.load(short, {"methods": methods})
    root = tmp_path / "out"
    found = compare(wanted, seeds=[0, 1], out=root, device="cpu", jobs=jobs)
    control, broken, kd = found.arms
    assert broken["verdict"]["word"] == "failed"
    assert broken["runs"] == []
    assert list(found.failed) == ["broken seed 0", "broken seed 1"]
    assert len(control["metrics"]["top1"]) == len(kd["metrics"]["top1"]) == 2
    assert log.text.count("broken seed 0 failed: Internal error, ValueError: no such thing") == 1
    assert "no such thing" in (root / "broken" / "seed0" / "failed.txt").read_text()
    sentence = "broken failed: seed 0: Internal error, ValueError: no such thing"
    page = report(root)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert sentence in text
    assert terminal_table(root).row_count == 4
    assert "failed" in found.table()
    assert set(found.to_frame()["arm"]) == {"control", "kd"}
