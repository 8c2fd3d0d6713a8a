"""A small table is reproduced: killed, stopped by its budget, continued, and told as it is."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import command_line, until
from tests.support.small_runs import TINY, outcome
from tests.support.small_table import pictures, table
from understudy import Recipe, Reproduction, Run, report, reproduce, train
from understudy.errors import Interrupted, RunError
from understudy.reproduction.budget import Budget

SHORT = 0.5
"""Share of the epochs: two of four."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the images, the tables, and a reproduction that nothing disturbed."""
    root = tmp_path_factory.mktemp("table")
    pictures(root / "data")
    reproduced(root, "whole", rows=["small"])
    return root


def reproduced(root: Path, out: str, *, name: str = "mine.yaml", **options: Any) -> Reproduction:
    if not (root / "mine.yaml").exists():
        table(root)
    keys = {"data.root": str(root / "data")}
    settings = {"seeds": [0], "epochs_scale": SHORT, "device": "cpu"} | options
    return reproduce(root / name, keys, out=root / out, **settings)


def digests(root: Path) -> dict[str, str]:
    """Path → SHA-256 of every trained network below a directory."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("student.safetensors")
        if path.parent.name != "best"
    }


def figures(result: Reproduction) -> list[dict[str, Any]]:
    """What must not depend on interruptions."""
    timed = {"predicted_seconds", "state"}
    return [{k: v for k, v in row.items() if k not in timed} for row in result.rows]


def test_killed_in_the_middle_of_a_row_it_goes_on_to_the_same(folder: Path) -> None:
    words = ["reproduce", folder / "mine.yaml", "--rows", "small", "--seeds", "0"]
    words += ["--epochs-scale", SHORT, "--data.root", folder / "data", "--device", "cpu"]
    words = [*map(str, words), "--out", str(folder / "killed")]
    student = folder / "killed" / "mine" / "small" / "seed0"
    process = command_line(*words)
    until(lambda: (student / "metrics.jsonl").exists(), process)
    process.kill()
    run = Run(student)
    assert not run.finished
    teachers = {path: path.stat().st_mtime_ns for path in (folder / "killed").glob("teachers/*/e*")}

    output = command_line(*words).finish()
    assert "cannot be said" in output
    assert digests(folder / "killed") == digests(folder / "whole")
    assert len(digests(folder / "whole")) == 2, "a teacher and a student"
    assert {path: path.stat().st_mtime_ns for path in teachers} == teachers
    again, whole = (Reproduction.load(folder / name / "mine") for name in ("killed", "whole"))
    assert figures(again) == figures(whole)
    assert "report.html" in {path.name for path in student.parents[1].iterdir()}


def test_a_scaled_budget_is_said_and_reproduces_nothing(folder: Path) -> None:
    result = reproduced(folder, "whole", rows=["small"])
    (row,) = result.rows
    assert row["mark"] == "cannot be said"
    assert row["reason"].startswith("another protocol (training.epochs, ")
    assert row["differences"][0] == "training.epochs 4 → 2"
    assert "Every training has 50 % of its published epochs" in result.facts()[0]
    (teacher,) = result.teachers
    run = Run(folder / "whole" / teacher["run"])
    assert teacher["score"] == run.evaluation["metrics"]["top1"] == row["teacher"]
    assert row["last"] == [Run(Path(result) / row["runs"][0]).evaluation["metrics"]["top1"]]
    assert row["state"] == "finished"
    frame = result.to_frame()
    assert list(frame["last"]) == row["last"]


def test_a_budget_leaves_rows_for_another_call_and_tables_share_teachers(folder: Path) -> None:
    shutil.copytree(folder / "whole", folder / "part")
    shutil.copy(folder / "mine.yaml", folder / "other.yaml")
    for path in (folder / "part").rglob("recipe.yaml"):
        path.write_text(path.read_text().replace("whole", "part"))
    result = reproduced(folder, "part", budget="0.01s")
    wide, small, _ = result.rows
    assert small["state"] == "finished"
    assert wide["state"].startswith("not run (predicted ")
    assert wide["predicted_seconds"] > 0
    assert wide["name"] in (Path(result) / "reproduction.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in (folder / "part").glob("teachers/*/e*")}
    assert before
    other = reproduced(folder, "part", name="other.yaml", rows=["unpublished"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["state"] for row in other.rows] == ["finished"]
    assert other.rows[0]["reason"] == "no published figure"


def test_several_runs_at_once_are_the_same_to_the_bit(folder: Path) -> None:
    rows = ["small", "wide"]
    result = reproduced(folder, "at_once", rows=rows, jobs=2)
    assert [row["state"] for row in result.rows] == ["finished", "finished"]
    at_once = digests(folder / "at_once")
    assert digests(folder / "whole").items() <= at_once.items()
    assert len(at_once) == 4, "two teachers and two students"


def test_a_budget_holds_for_other_processes_too(folder: Path) -> None:
    result = reproduced(folder, "at_once", rows=["unpublished"], jobs=2, budget="0.01s")
    assert result.rows[0]["state"].startswith("not run (predicted")


def test_a_second_stage_goes_on_from_the_first(folder: Path) -> None:
    shutil.copytree(folder / "whole" / "teachers", folder / "stages" / "teachers")
    text = (folder / "mine.yaml").read_text()
    first = text.replace("kd: {weight: {value: 0.9, warmup_epochs: 2}}", "ab: {}")
    (folder / "first.yaml").write_text(first)
    alone = "base: mine.yaml\nabout: {first: first.yaml}\nmethods: {}\n"
    alone += "rows: {small: {methods: {}, teacher.name: '', about.published: 3.0}}\n"
    (folder / "second.yaml").write_text(alone)
    result = reproduced(folder, "stages", name="second.yaml")
    assert [row["state"] for row in result.rows] == ["finished"]
    (stage,) = (folder / "stages" / "stages").glob("*/seed0")
    assert list(Run(stage).recipe.methods) == ["ab"]
    student = Run(Path(result) / "small" / "seed0").recipe.student
    assert student.weights == str(stage / "last")


def test_another_scale_needs_another_directory(folder: Path) -> None:
    with pytest.raises(RunError, match=r"was made by another recipe .* choose another --out"):
        reproduced(folder, "whole", rows=["small"], epochs_scale=0.75)


def test_a_row_that_cannot_be_trained_does_not_stop_the_others(folder: Path) -> None:
    shutil.copytree(folder / "whole" / "teachers", folder / "failed" / "teachers")
    text = (folder / "mine.yaml").read_text()
    broken = "  broken:\n    teacher.options.widths: [8, 8, 12, 16]\n    about.published: 3.0\n"
    broken += "    methods: {fitnet: {feature: stage9}}\n"
    (folder / "failed.yaml").write_text(text.replace("rows:\n", f"rows:\n{broken}"))
    names = ["broken", "unpublished"]
    result = reproduced(folder, "failed", name="failed.yaml", rows=names)
    states = {row["name"]: row["state"] for row in result.rows}
    assert "failed: " in states["broken"]
    assert "stage9" in states["broken"]
    assert states["unpublished"] == "finished"
    page = report(result).read_text()
    assert "stage9" in page
    assert "Rows that are not finished" in page


def test_a_run_that_the_budget_ends_is_saved(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(TINY)
    budget = Budget(0.0)
    with pytest.raises(Interrupted, match="everything is saved"):
        train(recipe, out=tmp_path / "run", callback=budget)
    assert budget.stopped
    again = train(recipe, out=tmp_path / "run", resume=True, callback=Budget(None))
    assert outcome(again) == outcome(train(recipe, out=tmp_path / "whole"))
