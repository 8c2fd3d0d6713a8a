"""Two processes give the losses of one at equal global batch, and both are seen to exist."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from understudy import recipe
from understudy.recipe import Recipe
from understudy.run import Run, train


def test_two_processes_equal_one(tiny: Recipe, tmp_path: Path) -> None:
    methods = {"lshfm": {"hashes": 64, "selective": True}, "nd": {}, "pefd": {}, "kd": {}}
    # 27 of 200 images are left for the last batch: 14 for one process, 13 for the other.
    wanted = recipe.parse(
        recipe.plain(tiny), {"methods": methods, "training.batch": 43, "training.lr": 0.01}
    )
    one = train(wanted, out=tmp_path / "one", device="cpu")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.dump(wanted))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "understudy", "distill", str(path), "--out", str(tmp_path / "two"),
         "--device", "cpu"],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    two = Run(tmp_path / "two")
    assert {p["rank"] for p in two.environment["processes"]} == {0, 1}
    assert len({p["pid"] for p in two.environment["processes"]}) == 2
    for alone, together in zip(one.epochs(), two.epochs(), strict=True):
        assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-5)
    assert json.loads((two.path / "evaluation.json").read_text())["metrics"][
        "top1"
    ] == pytest.approx(one.evaluation["metrics"]["top1"], abs=0.1)
