"""A comparison gives every arm the same budget, says what came of each, and can be continued."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import understudy
from tests.support.processes import ranks
from tests.support.small_runs import CNN
from understudy import data
from understudy.cli.output import print_lines
from understudy.comparison.arms import CONTROL
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.data import Source
from understudy.errors import Diverged, RecipeError, RunError, UnderstudyError
from understudy.experiment import networks
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.reporting import report, terminal_table
from understudy.reporting.collect import read
from understudy.reporting.next_steps import next_steps
from understudy.reporting.tables import table

BROKEN = {"kd": {"weight": 1e38, "temperature": 1.0}, "pefd": {}}


@pytest.fixture
def short(tiny: Recipe) -> Recipe:
    methods = {"kd": {"temperature": 2.0}, "close": {"method": "lshfm", "terms": "l2"}}
    return replace(tiny, training=replace(tiny.training, epochs=1), methods=methods)


def test_arms_are_labels_and_sums_of_labels(short: Recipe, tmp_path: Path) -> None:
    found = compare(short, methods=["close", "kd+close", "pefd"], seeds=[0, 1], out=tmp_path)
    assert {arm["name"]: arm["methods"] for arm in found.arms} == {
        CONTROL: {},
        "close": {"close": short.methods["close"]},
        "kd+close": short.methods,
        "pefd": {"pefd": {}},
    }
    assert json.loads((tmp_path / "comparison.json").read_text()) == found.to_dict()
    assert found.teacher["name"] == CNN
    assert found.teacher["metrics"]["top1"] > 0
    runs = [Run(tmp_path / path) for arm in found.arms for path in arm["runs"]]
    assert len(runs) == 8
    (images,) = {run.outcomes["images"] for run in runs}
    assert {arm["verdict"]["images"] for arm in found.arms if arm["verdict"]} == {images}
    for run in runs:
        share = run.outcomes["correct"].count("1") / images
        assert run.evaluation["metrics"]["top1"] == pytest.approx(100 * share)
    assert found.seconds == pytest.approx(sum(run.seconds for run in runs))
    for arm in found.arms:
        assert all(value is not None for value in arm["fidelity"]["agreement"]), arm["name"]
        assert arm["metrics"]["loss"][0] != arm["metrics"]["loss"][1], "seeds must differ"


def test_a_comparison_continues_where_it_stopped(short: Recipe, tmp_path: Path) -> None:
    first = compare(short, methods=["kd"], seeds=[0], out=tmp_path)
    stamp = (tmp_path / "kd" / "seed0" / "evaluation.json").stat().st_mtime_ns
    second = compare(short, methods=["kd", "pefd"], seeds=[0, 1], out=tmp_path)
    assert (tmp_path / "kd" / "seed0" / "evaluation.json").stat().st_mtime_ns == stamp
    assert second.arms[1]["metrics"]["top1"][0] == first.arms[1]["metrics"]["top1"][0]
    runs = [Run(tmp_path / path) for arm in second.arms for path in arm["runs"]]
    assert second.seconds == pytest.approx(sum(run.seconds for run in runs))
    other = replace(short, training=replace(short.training, lr=0.01))
    with pytest.raises(RunError, match="comparison by another recipe"):
        compare(other, methods=["kd"], seeds=[0], out=tmp_path)


def test_arms_share_one_teacher_and_learn_what_they_would_alone(
    short: Recipe, tmp_path: Path
) -> None:
    short = replace(short, data=replace(short.data, seed=0))
    found = compare(short, methods=["kd", "pefd"], seeds=[0, 1], out=tmp_path / "all")
    kd, pefd = ([Run(tmp_path / "all" / path) for path in arm["runs"]] for arm in found.arms[1:])
    first, *others = [run.evaluation["teacher_seconds"] for run in (kd[0], pefd[0], pefd[1])]
    assert first > 0
    assert others == [0, 0], "kd has met all of their views"
    assert found.teacher["seconds"] == first + kd[1].evaluation["teacher_seconds"]
    alone = train(replace(short, methods={"pefd": {}}, seed=1), out=tmp_path / "alone")
    student = "student.safetensors"
    assert (alone.path / student).read_bytes() == (pefd[1].path / student).read_bytes()


def test_images_are_loaded_once_for_all_arms_of_a_seed(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = data.find(short.data.source)
    load, splits = source.load, []

    def counted(root: str, split: Literal["train", "test"], **options: Any) -> Source:
        loaded = load(root, split, **options)
        splits.append(split)  # there is no validation split
        return loaded

    monkeypatch.setattr(source, "load", counted)
    compare(short, methods=["kd", "pefd"], seeds=[0, 1], out=tmp_path)
    assert splits == ["train", "test"] * 2


def test_one_teacher_serves_the_check_of_all_arms(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = []
    build = networks.teachers

    def counted(*arguments: Any, **options: Any) -> Any:
        teachers.append(build(*arguments, **options))
        return teachers[-1]

    monkeypatch.setattr(networks, "teachers", counted)
    far = {"far": {"method": "fitnet", "feature": "stage9"}}
    with pytest.raises(UnderstudyError, match="has no feature 'stage9'"):
        compare(replace(short, methods=far), methods=["kd", "pefd", "far"], out=tmp_path)
    assert len(teachers) == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"teacher.weights": "", "teacher.name": CNN}, "has no weights and would teach noise"),
        ({"methods.kd": {"heat": 3}}, r"Unknown key 'methods\.kd\.heat'"),
    ],
)
def test_what_needs_no_image_is_refused_before_any_is_read(
    short: Recipe, tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    missing = {"data.source": "folder", "data.root": str(tmp_path / "missing")}
    asked = Recipe.load(short, missing | keys)
    with pytest.raises(UnderstudyError, match=words):
        compare(asked, methods=["kd"], out=tmp_path / "out")


def test_seeds_of_image_files_have_banks_of_their_own(short: Recipe, tmp_path: Path) -> None:
    crops = replace(short, data=replace(short.data, augment="resized_crop"))
    compare(crops, methods=["kd"], seeds=[0, 1], out=tmp_path)
    assert {path.name for path in (tmp_path / "bank").iterdir()} == {"seed0", "seed1"}
    same = replace(crops, data=replace(crops.data, seed=3))
    compare(same, methods=["kd"], seeds=[0, 1], out=tmp_path / "same")
    assert [path.name for path in (tmp_path / "same" / "bank").iterdir()] == ["all"]


def test_an_arm_whose_features_no_bank_stores_has_the_teacher_itself(
    short: Recipe, tmp_path: Path
) -> None:
    found = compare(short, methods=["fitnet", "kd"], seeds=[0], out=tmp_path)
    runs = [Run(tmp_path / arm["runs"][0]) for arm in found.arms]
    seconds = [run.evaluation["teacher_seconds"] for run in runs]
    assert [x is None for x in seconds] == [True, True, False]
    assert not runs[1].recipe.bank.path


def test_arms_that_saw_other_images_are_not_compared(short: Recipe, tmp_path: Path) -> None:
    compare(short, methods=["kd"], seeds=[0], out=tmp_path)
    file = tmp_path / "kd" / "seed0" / "environment.json"
    changed = json.loads(file.read_text())
    changed["digests"]["test images"] = "0123456789abcdef"
    file.write_text(json.dumps(changed))
    with pytest.raises(RunError, match="kd/seed0 was made with another test images than the con"):
        compare(short, methods=["kd"], seeds=[0], out=tmp_path)


def test_a_diverged_arm_is_recorded_and_the_others_go_on(short: Recipe, tmp_path: Path) -> None:
    wanted = replace(short, methods=BROKEN)
    found = compare(wanted, seeds=[0, 1], out=tmp_path)
    control, kd, pefd = found.arms
    assert kd["verdict"]["word"] == "diverged"
    assert "kd diverged: The loss" in kd["verdict"]["sentence"]
    assert len(pefd["metrics"]["top1"]) == len(control["metrics"]["top1"]) == 2
    assert not (tmp_path / "kd" / "seed1").exists()
    page = report(tmp_path)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "kd diverged: The loss" in text
    assert terminal_table(tmp_path).row_count == 4

    stamp = (tmp_path / "kd" / "seed0" / "environment.json").stat().st_mtime_ns
    assert compare(wanted, seeds=[0, 1], out=tmp_path).arms == found.arms
    assert (tmp_path / "kd" / "seed0" / "environment.json").stat().st_mtime_ns == stamp
    shutil.rmtree(tmp_path / "kd" / "seed0")
    compare(wanted, seeds=[0, 1], out=tmp_path)
    assert Run(tmp_path / "kd" / "seed0").diverged


def test_the_whole_report_of_a_comparison_in_which_nothing_survived(
    short: Recipe, tmp_path: Path
) -> None:
    compare(replace(short, methods={"kd": BROKEN["kd"]}), seeds=[0], out=tmp_path)
    assert "The training of every method diverged." in report(tmp_path).read_text()


def test_a_control_that_diverges_ends_the_comparison(short: Recipe, tmp_path: Path) -> None:
    wanted = replace(short, training=replace(short.training, lr=1e30))
    for _ in range(2):
        with pytest.raises(Diverged, match="The loss 'task' became NaN"):
            compare(wanted, methods=["pefd"], seeds=[0], out=tmp_path)
    assert not (tmp_path / "pefd").exists()


@pytest.mark.parametrize(
    ("methods", "error", "words"),
    [
        (["kd", "pefdd"], UnderstudyError, "did you mean 'pefd'"),
        (["kd", "far"], UnderstudyError, "has no feature 'stage9'"),
        (["control"], RecipeError, "arm without a method"),
    ],
)
def test_an_arm_that_cannot_work_is_refused_before_anything_is_trained(
    short: Recipe, tmp_path: Path, methods: list[str], error: type[UnderstudyError], words: str
) -> None:
    far = {"far": {"method": "fitnet", "feature": "stage9"}}
    with pytest.raises(error, match=words):
        compare(replace(short, methods=far), methods=methods, seeds=[0], out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_seeds_that_repeat_are_no_evidence(short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="The seeds 0, 0, 0 repeat themselves"):
        compare(short, seeds=[0, 0, 0], out=tmp_path)


def test_without_labels_the_control_is_the_student_as_it_begins(
    short: Recipe,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = replace(short, task="none", methods={})
    with caplog.at_level("INFO", logger="understudy"):
        result = compare(wanted, methods=["pkt", "kd"], seeds=[0], out=tmp_path, progress=True)
    assert "the student is measured with random weights" in caplog.text
    lines = capsys.readouterr().out.splitlines()
    assert sum("its classifier stays untrained" in line for line in lines) == 1
    assert sum("seed 0" in line and "]  knn " in line for line in lines) == 3
    control, pkt, kd = result.arms
    # Nothing but kd reads the student's scores: those of others are of an untrained classifier.
    for key in ("agreement", "kl"):
        assert control["fidelity"][key] == pkt["fidelity"][key] == [None]
        assert kd["fidelity"][key] != [None]
    header, *rows = table(read([tmp_path]))
    place = header.index("agreement")
    assert [row[place] for row in rows[:-1]] == ["–", "–", "–"]
    assert rows[-1][place].endswith("%")
    for arm in (pkt, kd):
        run = tmp_path / arm["runs"][0]
        measured = evaluate(run, {"trust": True}).fidelity
        assert measured is not None
        assert measured["agreement"] == arm["fidelity"]["agreement"][0]
        assert repr(Run(run)).endswith(f"knn {arm['metrics']['knn'][0]:.4g}>")
        # Nor do they name a class of a picture.
        predictor, step = understudy.load(run, trust=True), next_steps([run])[0]
        print_lines(Run(run))
        command = "predict" if arm is kd else "probe"
        assert f"understudy {command} {run}" in capsys.readouterr().out
        assert step.command.startswith(f"understudy {command} ")
        if arm is kd:
            assert predictor.decision()
        else:
            with pytest.raises(RecipeError, match="Nothing trained the classifier of"):
                predictor.decision()
    assert result.metric == "knn"
    assert set(control["metrics"]) == set(pkt["metrics"]) == {"knn", "linear"}
    assert result.teacher["metrics"]["knn"] > 0
    assert {"cka", "cosine", "knn_agreement"} <= set(control["fidelity"])
    assert control["cost"]["seconds"][0] < pkt["cost"]["seconds"][0]
    runs = [Run(tmp_path / name / "seed0") for name in ("control", "pkt")]
    assert [len(run.history) for run in runs] == [0, short.training.epochs]
    assert all(run.outcomes["metric"] == "knn" and run.outcomes["correct"] for run in runs)
    begun, trained = (run.student().state_dict() for run in runs)
    assert any(not torch.equal(begun[name], trained[name]) for name in begun)


def test_two_processes_compare_as_one(short: Recipe, tmp_path: Path) -> None:
    wanted = replace(short, methods=BROKEN)
    one = compare(wanted, seeds=[0], out=tmp_path / "one", device="cpu")
    path = tmp_path / "recipe.yaml"
    path.write_text(wanted.to_yaml())
    command = ["-m", "understudy", "compare", path, "--seeds", "0", "--out", tmp_path / "two"]
    for process in ranks(2, *command, "--device", "cpu"):
        process.finish()
    two = json.loads((tmp_path / "two" / "comparison.json").read_text())
    words = [arm["verdict"] and arm["verdict"]["word"] for arm in two["arms"]]
    assert words == [None, "diverged", "too few seeds"]
    for place in (0, 2):
        alone, together = one.arms[place]["metrics"], two["arms"][place]["metrics"]
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
