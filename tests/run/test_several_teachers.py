"""Runs with several teachers: equal to one where they should be, continued exactly, and banked."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.banked_runs import counted
from tests.support.processes import ranks
from tests.support.small_runs import CNN, Stop, distillation, outcome
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.experiment.runner import Runner
from understudy.experiment.train import distill, train
from understudy.reporting import report
from understudy.reporting.charts.feature_geometry import feature_geometries
from understudy.reporting.collect import read

METHODS: dict[str, Any] = {"lshfm": {"hashes": 64}, "kd": {}}


def several(teacher: Path, **changes: Any) -> Recipe:
    """Return a recipe in which the same network teaches twice, on images of another size."""
    plain = distillation(teacher)
    teachers = {
        "one": {"weights": str(teacher), "methods": METHODS},
        "two": {"weights": str(teacher), "size": 24, "mean": [0.3] * 3, "methods": {"pefd": {}}},
    }
    content = plain.to_dict() | {"teacher": {}, "methods": {}, "teachers": teachers}
    return Recipe.load(content, {"training.epochs": 1, "training.lr": 0.01, **changes})


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two teachers."""
    return train(several(teacher), out=tmp_path_factory.mktemp("several") / "whole")


def test_one_teacher_with_a_name_is_one_without(teacher: Path, tmp_path: Path) -> None:
    plain = Recipe.load(distillation(teacher), {"training.epochs": 1})
    content = plain.to_dict() | {"teacher": {}, "methods": {}}
    content["teachers"] = {"one": {"weights": str(teacher), "methods": METHODS}}
    runs = [distill(plain, out=tmp_path / "plain"), distill(content, out=tmp_path / "named")]
    (lines, weights), (named_lines, named_weights) = map(outcome, runs)
    assert named_weights == weights
    labels = {"kd": "one/kd", "lshfm": "one/lshfm"}
    for line, named_line in zip(lines, named_lines, strict=True):
        losses = {labels.get(name, name): x for name, x in line["losses"].items()}
        assert named_line["losses"] == losses
        assert named_line["metrics"] == line["metrics"]
        # A mean over one teacher is that teacher's.
        assert line["fidelity"].items() <= named_line["fidelity"].items()


def test_a_run_says_how_close_the_student_is_to_each_teacher(whole: Run) -> None:
    fidelity = whole.evaluation["fidelity"]
    mean = (fidelity["one/cka"] + fidelity["two/cka"]) / 2
    assert fidelity["cka"] == pytest.approx(mean)
    assert fidelity["one/cka"] != fidelity["two/cka"]
    assert whole.evaluation["teacher"] is None
    assert whole.evaluation["teachers"].keys() == {"one", "two"}
    assert {"teacher one", "teacher two"} <= whole.environment["digests"].keys()
    assert whole.config.teachers["two"]["name"] == CNN
    measured = evaluate(whole, {"trust": True}).fidelity
    assert measured is not None
    assert measured.keys() == fidelity.keys()
    for key in ("agreement", "one/kl", "two/kl"):
        assert measured[key] == pytest.approx(fidelity[key], abs=1e-6)


def test_a_signal_saves_and_resume_is_exact(teacher: Path, whole: Run, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(several(teacher), out=tmp_path, callback=Stop(3, signal.SIGTERM))
    assert outcome(train(several(teacher), out=tmp_path, resume=True)) == outcome(whole)


def test_two_ranks_agree_with_one_process(teacher: Path, whole: Run, tmp_path: Path) -> None:
    path = tmp_path / "several.yaml"
    path.write_text(several(teacher).to_yaml())
    flags = ["--out", tmp_path / "two", "--device", "cpu", "--no-doctor"]
    for process in ranks(2, "-m", "understudy", "distill", path, *flags):
        process.finish()
    together = Run(tmp_path / "two").history[0]["losses"]
    assert together == pytest.approx(whole.history[0]["losses"], rel=1e-5, abs=1e-6)


def test_each_teacher_has_a_bank_and_the_second_run_asks_none(
    teacher: Path, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banks = {f"teachers.{name}.bank.path": str(tmp_path / name) for name in ("one", "two")}
    recipe = several(teacher, **banks)
    with counted(monkeypatch) as first:
        assert outcome(train(recipe, out=tmp_path / "first")) == outcome(whole)
    with counted(monkeypatch) as second:
        assert outcome(train(recipe, out=tmp_path / "second")) == outcome(whole)
    assert first
    assert not second
    # Without its bank, one teacher sees every image of the epoch, and the other none.
    del banks["teachers.two.bank.path"]
    with counted(monkeypatch) as third:
        train(several(teacher, **banks), out=tmp_path / "third")
    assert sum(third) == 200


def test_the_arms_of_a_comparison_share_the_banks(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with counted(monkeypatch) as passes:
        _watch(monkeypatch, passes, seen)
        result = compare(several(teacher), seeds=[0], out=tmp_path)
    assert [arm["name"] for arm in result.arms] == ["control", "one+two", "one", "two"]
    assert sorted(path.name for path in (tmp_path / "bank").iterdir()) == ["one", "two"]
    # The arm of both has filled the banks: those of one teacher ask neither.
    assert seen[1] > seen[0]
    assert seen[1:] == [seen[1]] * 3
    assert result.teacher is None
    assert {row[0] for row in result.cells()} >= {"teacher one", "teacher two"}
    cka = result.arms[2]["fidelity"]
    assert {"cka", "one/cka", "two/cka"} <= cka.keys()
    _check_charts(tmp_path, cka["two/cka"])


def _check_charts(folder: Path, cka: list[float]) -> None:
    """Check that the report compares the features of every arm with those of each teacher."""
    results = read([folder])
    charts = feature_geometries(results)
    assert [each.teacher for each in charts] == ["one", "two"]
    for each in charts:
        names = [arm.name for arm in each.arms]
        assert names == [f"teacher {each.teacher}", "control", "one+two", "one", "two"]
        assert {plot.title for plot in each.ridges} >= {"Feature norm"}
    # The projector of pefd belongs to the teacher two; the others have none beside it.
    (plot,) = [x for x in charts[1].dots if x.title == "Projector: CKA, penultimate"]
    rows = {row.arm.name: row for row in plot.rows}
    assert rows["two"].projected is not None
    assert rows["one"].projected is None
    assert rows["one"].own is not None
    assert cka != results.arms[-1].fidelity["one/cka"]
    page = report(folder).read_text()
    assert page.count("<h2>Direction and norm of the features, beside the teacher ") == 2


def _watch(monkeypatch: pytest.MonkeyPatch, passes: list[int], seen: list[int]) -> None:
    """Keep how many passes of teachers there were when each run had ended."""
    conclude: Callable[..., None] = Runner._conclude

    def counting(self: Runner, summary: dict[str, Any]) -> None:
        conclude(self, summary)
        seen.append(len(passes))

    monkeypatch.setattr(Runner, "_conclude", counting)
