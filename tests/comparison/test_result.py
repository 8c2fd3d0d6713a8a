"""A comparison as an object: read, tabulated, continued."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import understudy
from tests.support.small_runs import Stop, distillation, outcome
from understudy.comparison.result import Comparison
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted, NameNotFound, RunError, UnderstudyError

SHORT = {"training.epochs": 1, "data.images": 100}


@pytest.fixture(scope="module")
def comparison(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Control and kd over two seeds."""
    out = tmp_path_factory.mktemp("comparison")
    return understudy.compare(
        distillation(teacher), SHORT, methods=["kd"], seeds=[0, 1], out=out, device="cpu"
    )


def test_it_is_read_back_as_it_was(comparison: Comparison) -> None:
    assert comparison.path is not None
    again = Comparison.load(comparison.path)
    assert again == comparison
    assert again.path == comparison.path
    written = json.loads((comparison.path / "comparison.json").read_text())
    assert written == again.to_dict()
    assert Comparison.load(comparison) == comparison


def test_what_is_no_comparison_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it does not exist"):
        Comparison.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"it has no comparison\.json"):
        Comparison.load(tmp_path)
    damaged = {k: v for k, v in comparison.to_dict().items() if k not in ("arms", "metric")}
    (tmp_path / "comparison.json").write_text(json.dumps(damaged))
    with pytest.raises(RunError, match="has no arms, metric"):
        Comparison.load(tmp_path)


def test_the_table_has_a_row_for_the_teacher_and_every_arm(comparison: Comparison) -> None:
    header, rule, *rows = comparison.table().splitlines()
    assert header.split("|")[2].strip() == "top1"
    assert set(rule) == set("|-: ")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["teacher", "control", "kd"]
    control = comparison.arms[0]["metrics"]["top1"]
    assert float(cells[1][1].split(" ± ")[0]) == pytest.approx(sum(control) / 2, abs=0.006)
    assert cells[2][-1] == comparison.arms[1]["verdict"]["word"]
    assert len({len(row) for row in comparison.table().splitlines()}) == 1


def test_a_notebook_shows_the_same_cells(comparison: Comparison) -> None:
    html = comparison._repr_html_()
    assert html.count("<tr>") == 4
    assert comparison.arms[1]["verdict"]["word"] in html
    assert repr(comparison) == "<Comparison 'tiny' by top1: control, kd>"


def test_its_runs_are_runs(comparison: Comparison) -> None:
    runs = comparison.runs("kd")
    assert [run.recipe.seed for run in runs] == [0, 1]
    assert [run.evaluation["metrics"]["top1"] for run in runs] == (
        comparison.arms[1]["metrics"]["top1"]
    )
    with pytest.raises(NameNotFound, match="did you mean 'kd'"):
        comparison.runs("kdd")
    with pytest.raises(RunError, match="not read from a directory"):
        Comparison(**comparison.to_dict()).runs("kd")


def test_its_students_know_their_verdict(comparison: Comparison) -> None:
    verdict = comparison.arms[1]["verdict"]
    for run in comparison.runs("kd"):
        config = run.config
        assert config.verdict == verdict["sentence"]
        assert config.control is not None
        assert config.control["difference"] == verdict["difference"]
        assert config.teacher is not None
        assert config.teacher["digest"] == run.environment["digests"]["teacher"]
        assert config.recipe == run.recipe.digest
    assert all(run.config.verdict is None for run in comparison.runs("control"))
    assert comparison.best == comparison.runs("kd")[0]


def test_the_best_by_a_measure_of_fidelity_is_one_too(comparison: Comparison) -> None:
    judged = replace(comparison, metric="agreement")
    assert judged.metric not in judged.arms[1]["metrics"]
    assert judged.best == judged.runs("kd")[0]


def test_a_data_frame_has_a_row_for_every_run(comparison: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = comparison.to_frame()
    assert frame[["arm", "seed"]].values.tolist() == [
        ["control", 0], ["control", 1], ["kd", 0], ["kd", 1],
    ]  # fmt: skip
    assert frame["top1"].tolist()[2:] == comparison.arms[1]["metrics"]["top1"]
    assert (frame["seconds"] > 0).all()


def test_it_stands_for_its_directory(comparison: Comparison, tmp_path: Path) -> None:
    page = understudy.report(comparison, out=tmp_path)
    assert "kd" in page.read_text()


def test_an_interrupted_comparison_is_resumed(
    tiny: Recipe, comparison: Comparison, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"no comparison in .* to continue; start without --resume"):
        understudy.compare(tiny, SHORT, methods=["kd"], seeds=[0], out=tmp_path, resume=True)
    assert not list(tmp_path.iterdir())
    stop = Stop(2, signal.SIGTERM)
    with pytest.raises(Interrupted, match=rf"continue with `understudy --resume {tmp_path}`"):
        understudy.compare(
            tiny, SHORT, methods=["kd"], seeds=[0, 1], out=tmp_path, device="cpu", callback=stop
        )
    resumed = understudy.compare(
        tiny, SHORT, methods=["kd"], seeds=[0, 1], out=tmp_path, device="cpu", resume=True
    )
    for arm in ("control", "kd"):
        pairs = zip(resumed.runs(arm), comparison.runs(arm), strict=True)
        assert all(outcome(one) == outcome(other) for one, other in pairs)


def test_a_demonstration_that_never_began_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no demonstration in .* to continue"):
        understudy.demo(out=tmp_path, resume=True)
    with pytest.raises(UnderstudyError, match="no demonstration 'segmentation'"):
        understudy.demo(task="segmentation")  # type: ignore[arg-type]
