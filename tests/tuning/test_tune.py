"""A search end to end, on the smallest images: halved, continued, judged on fresh seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import understudy
from tests.support.small_images import CLOTHES
from tests.support.small_runs import distillation, outcome
from understudy.cli.commands import main
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError, RunError, Unfinished
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.tuning.result import Tuning

SHORT = {"training.epochs": 3, "data.images": 100, "training.batch": 50}
ARGUMENTS: dict[str, Any] = {
    "methods": ["kd"], "trials": 4, "seeds": [5], "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def tuning(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """A search of four trials."""
    out = tmp_path_factory.mktemp("tuning")
    return understudy.tune(distillation(teacher), SHORT, out=out, **ARGUMENTS)


def folder(tuning: Tuning) -> Path:
    assert tuning.path is not None
    return tuning.path


def test_the_best_third_goes_on_and_the_best_of_all_is_chosen(tuning: Tuning) -> None:
    assert tuning.rungs == [1, 3]
    first = [trial["scores"]["1"] for trial in tuning.trials]
    whole = {trial["number"]: trial["scores"]["3"] for trial in tuning.trials}
    best_two = sorted(range(4), key=lambda number: -first[number])[:2]
    assert {number for number, score in whole.items() if score is not None} == set(best_two)
    assert tuning.winner == max(best_two, key=lambda number: (whole[number], -number))
    assert tuning.trials[0]["published"]


def test_it_is_judged_on_fresh_seeds(tuning: Tuning) -> None:
    comparison = tuning.comparison
    assert comparison is not None
    names = [arm["name"] for arm in comparison.arms]
    chosen = tuning.trials[tuning.winner or 0]
    assert names == ["control", *["tuned"] * (not chosen["published"]), "published"]
    assert all(arm["seeds"] == [5] for arm in comparison.arms)


def test_all_runs_hold_out_the_same_images_behind_one_bank(tuning: Tuning) -> None:
    trial = Run(folder(tuning) / "trials" / "000")
    judged = Run(folder(tuning) / "judged" / "published" / "seed5")
    assert "held out" in tuning.validation
    assert trial.environment["digests"] == judged.environment["digests"]
    assert Path(trial.recipe.bank.path) == folder(tuning) / "bank" / "all"
    assert trial.recipe.bank.path == judged.recipe.bank.path


def test_a_trial_that_goes_on_from_a_rung_equals_a_whole_run(
    tuning: Tuning, tmp_path: Path
) -> None:
    trial = Run(folder(tuning) / "trials" / f"{tuning.winner:03}")
    assert outcome(train(trial.recipe, out=tmp_path, device="cpu", threads=1)) == outcome(trial)


def test_what_was_killed_goes_on_with_the_same_trials(
    tuning: Tuning, teacher: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder(tuning), again)
    (again / "tuning.json").unlink()
    for number in (2, 3):
        shutil.rmtree(again / "trials" / f"00{number}")
    other = understudy.tune(distillation(teacher), SHORT, out=again, resume=True, **ARGUMENTS)
    timeless = [{**trial, "seconds": 0.0} for trial in other.trials]
    assert timeless == [{**trial, "seconds": 0.0} for trial in tuning.trials]
    assert other.methods == tuning.methods


def test_the_winner_is_a_recipe(tuning: Tuning) -> None:
    tuned = Recipe.read(folder(tuning) / "tuned.yaml")
    assert tuned.methods == tuning.methods
    assert tuned.data.validation == 0


def test_it_is_shown_and_read_back(tuning: Tuning, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tuning)
    assert Tuning.load(root) == tuning
    main(["--resume", str(root), "--trust", "true", "--device", "cpu", "--jobs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert f"To use it: understudy distill {root}/tuned.yaml" in lines
    assert lines[-1] == f"report: {root}/report.html"
    page = (root / "report.html").read_text()
    assert "On fresh seeds and test images" in page
    assert all(trial["text"] in page for trial in tuning.trials)
    assert (root / "judged" / "report.html").is_file()


def test_without_test_images_the_search_says_that_what_chose_the_winner_judges_it(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unsplit = {"data.root": f"{CLOTHES}/test", "data.images": None, "data.validation": 0.2}
    out = tmp_path / "out"
    searched = understudy.tune(distillation(teacher), SHORT | unsplit, out=out, **ARGUMENTS)
    assert "the validation images that choose the winner judge it too" in caplog.text
    assert searched.judged_on == "validation"
    assert "the same ones judge the winner, whose lead is too large" in searched.markdown()
    if not searched.trials[searched.winner or 0]["published"]:
        assert "fresh seed and the validation images that chose it" in searched.headline()


def test_a_trial_that_diverges_is_kept_as_failed(teacher: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(distillation(teacher), {"methods": {"bad": {"method": "kd"}}})
    keys = {**SHORT, "methods.bad.weight": 1e37, "training.epochs": 1}
    with pytest.raises(Unfinished, match="No trial could be trained to its end, first: "):
        understudy.tune(
            recipe, keys, out=tmp_path, methods=["bad"], trials=1, seeds=[1], device="cpu"
        )
    written = json.loads((tmp_path / "tuning.json").read_text())
    assert written["trials"][0]["failed"]
    assert written["winner"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trials": 0}, RecipeError, "--trials cannot be 0"),
        ({"seeds": [0]}, RecipeError, "the seed of the trials"),
        ({"budget": "10"}, RecipeError, "must be a duration"),
        ({"methods": ["kdd"]}, understudy.UnderstudyError, "did you mean 'kd'"),
        ({"resume": True}, RunError, "There is no search in"),
    ],
)
def test_what_makes_no_sense_is_refused(
    teacher: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        understudy.tune(distillation(teacher), SHORT, out=tmp_path, device="cpu", **arguments)
    assert not list(tmp_path.iterdir())


def test_another_search_is_not_mixed_in(tuning: Tuning, teacher: Path) -> None:
    recipe, root = distillation(teacher), folder(tuning)
    with pytest.raises(RunError, match=r"training.lr: 0.05 there, 0.1 here"):
        understudy.tune(recipe, {**SHORT, "training.lr": 0.1}, out=root, **ARGUMENTS)
    with pytest.raises(RunError, match="methods kd there, lshfm here"):
        understudy.tune(recipe, SHORT, out=root, **{**ARGUMENTS, "methods": ["lshfm"]})


def test_a_budget_that_holds_nothing_says_what_is_needed(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="are needed for the published values, the search"):
        understudy.tune(
            distillation(teacher),
            SHORT,
            out=tmp_path,
            methods=["kd", "nd"],
            seeds=range(1, 4000),
            budget="60s",
            device="cpu",
        )
