"""A run as an object: its student, its numbers, how it shows itself."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import understudy
from tests.support.plain_cnn import factory
from understudy.config.recipe import Recipe
from understudy.errors import NetworkError, RunError, UnderstudyError
from understudy.experiment.run_directory import Run
from understudy.models import Network

SHORT = {"training.epochs": 1, "data.images": 100}


@pytest.fixture(scope="module")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A distilled student whose feature was embedded into the teacher's dimension."""
    from tests.support.small_runs import distillation

    recipe = distillation(teacher)
    return understudy.distill(recipe, SHORT, out=tmp_path_factory.mktemp("runs") / "student")


def test_the_student_of_a_run_is_plain_and_has_its_weights(run: Run) -> None:
    student = run.student(trust=True)
    assert not student.training
    assert type(student).__name__ == type(factory()).__name__
    stored = load_file(run.path / "student.safetensors")
    assert student.state_dict().keys() == stored.keys()
    assert all(torch.equal(student.state_dict()[key], stored[key]) for key in stored)
    evaluated = Network(student)(torch.rand(4, 3, 32, 32))
    assert evaluated.shape == (4, 10)


def test_layers_that_a_method_leaves_in_the_student_come_back(tiny: Recipe, tmp_path: Path) -> None:
    sizes = {"words": 16, "subclasses": 2, "iterations": 4}
    run = understudy.train(replace(tiny, methods={"letkd": sizes}), SHORT, out=tmp_path)
    student, stored = run.student(trust=True), load_file(run.path / "student.safetensors")
    assert student.state_dict().keys() == stored.keys()
    assert len(stored) > len(factory().state_dict())
    assert all(torch.equal(student.state_dict()[key], stored[key]) for key in stored)


def test_no_student_before_the_first_evaluation(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no recipe"):
        Run(tmp_path).student(trust=True)
    (tmp_path / "recipe.yaml").write_text(run.recipe.to_yaml())
    with pytest.raises(RunError, match="holds no student yet"):
        Run(tmp_path).student(trust=True)


def test_weights_of_another_network_are_refused(run: Run, tmp_path: Path) -> None:
    for name in ("environment.json", "student.safetensors"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    other = Recipe.load(run.recipe, {"student.options.width": 16})
    (tmp_path / "recipe.yaml").write_text(other.to_yaml())
    with pytest.raises(NetworkError, match="do not fit PlainCNN: 7 of another size"):
        Run(tmp_path).student(trust=True)


def test_a_run_stands_for_its_directory(run: Run, tmp_path: Path) -> None:
    assert os.fspath(run) == str(run.path)
    assert understudy.evaluate(run, {"trust": True}).metrics == pytest.approx(
        run.evaluation["metrics"]
    )
    assert understudy.report(run, out=tmp_path) == tmp_path / "report.html"
    assert Run.open(run) == run


def test_a_run_tells_where_it_is_how_far_and_how_good(run: Run, tmp_path: Path) -> None:
    top1 = f"top1 {run.evaluation['metrics']['top1']:.4g}"
    assert repr(run) == f"<Run '{run.path}': finished, {top1}>"
    assert repr(Run(tmp_path)) == f"<Run '{tmp_path}': not begun>"
    (tmp_path / "recipe.yaml").write_text(run.recipe.to_yaml())
    assert repr(Run(tmp_path)) == f"<Run '{tmp_path}': epoch 0 of 1>"
    (tmp_path / "metrics.jsonl").write_bytes((run.path / "metrics.jsonl").read_bytes())
    assert repr(Run(tmp_path)) == f"<Run '{tmp_path}': epoch 1 of 1, {top1}>"
    (tmp_path / "diverged.txt").write_text("The loss 'kd' became NaN.\n")
    assert repr(Run(tmp_path)).startswith(f"<Run '{tmp_path}': diverged")


def test_a_notebook_shows_a_run(run: Run, tmp_path: Path) -> None:
    cells = dict(re.findall(r"<t[hd]>(.*?)</t[hd]><t[hd]>(.*?)</t[hd]>", run._repr_html_()))
    assert cells["run"] == str(run.path)
    assert cells["status"] == "finished"
    assert float(cells["top1"]) == pytest.approx(run.evaluation["metrics"]["top1"], rel=1e-3)
    assert "not begun" in Run(tmp_path)._repr_html_()


def test_the_history_as_a_data_frame(run: Run) -> None:
    pytest.importorskip("pandas")
    frame = run.to_frame()
    assert frame["epoch"].tolist() == [record["epoch"] for record in run.history]
    assert frame["losses.kd"].tolist() == [record["losses"]["kd"] for record in run.history]
    assert frame["metrics.top1"].tolist() == [run.evaluation["metrics"]["top1"]]


def test_without_pandas_a_data_frame_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnderstudyError, match="pip install pandas"):
        run.to_frame()


def test_reading_a_run_loads_no_torch(run: Run) -> None:
    code = f"""
import sys
from understudy.experiment.run_directory import Run
run = Run.open({str(run.path)!r})
print(run.evaluation["metrics"]["top1"], len(run.history), run.recipe.name, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
