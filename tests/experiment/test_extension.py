"""A finished run is extended exactly, and patience ends one that sees no progress."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.small_runs import TINY, outcome
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted, RecipeError, RunError
from understudy.experiment.extension import out_of_patience
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

SHORT: dict[str, Any] = {"data.images": 64, "training.epochs": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A constant rate for two epochs."""
    out = tmp_path_factory.mktemp("extension") / "run"
    return train(TINY, {**SHORT, "training.schedule": "constant"}, out=out).path


def test_at_a_constant_rate_it_is_the_run_of_all_epochs(finished: Path, tmp_path: Path) -> None:
    keys = {**SHORT, "training.schedule": "constant"}
    whole = train(TINY, {**keys, "training.epochs": 4}, out=tmp_path / "whole")
    longer = train(TINY, keys, out=finished, extend=2)
    assert outcome(longer) == outcome(whole)
    assert longer.recipe.training.epochs == 4
    assert longer.environment["extended"] == [{"from": 2, "by": 2}]


def test_a_cosine_rises_to_where_the_longer_one_is(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    run = train(TINY, SHORT, out=tmp_path)
    assert run.history[-1]["lr"] < 0.02
    longer = train(TINY, SHORT, out=tmp_path, extend=2)
    rates = [record["lr"] for record in longer.history]
    assert rates[2] == pytest.approx(0.05 * 0.3087, rel=0.01)
    assert rates[1] < rates[2] > rates[3]
    assert any("Extended from 2 to 4 epochs" in record.getMessage() for record in log.records)


def test_stopped_in_the_extension_it_goes_on_to_the_same(tmp_path: Path) -> None:
    class Stop:
        def epoch(self, record: dict[str, Any]) -> None:
            if record["epoch"] == 3:
                raise Interrupted("stopped")

        def __getattr__(self, name: str) -> Any:
            return lambda *values: None

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        train(TINY, SHORT, out=path)
    train(TINY, SHORT, out=whole, extend=2)
    with pytest.raises(Interrupted):
        train(TINY, SHORT, out=cut, extend=2, callback=Stop())
    assert not Run(cut).finished
    with pytest.raises(RunError, match="is not finished"):
        train(Run(cut).recipe, out=cut, extend=2)
    train(Run(cut).recipe, out=cut, resume=True)
    assert outcome(Run(cut)) == outcome(Run(whole))


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"training.lr": 0.01}, RunError, "made by another recipe"),
        ({}, RecipeError, "'--extend' is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    finished: Path, keys: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = (finished / "evaluation.json").read_bytes()
    epochs = {"training.epochs": Run(finished).recipe.training.epochs}
    recipe = Recipe.load(TINY, {**SHORT, "training.schedule": "constant", **epochs, **keys})
    with pytest.raises(error, match=words):
        train(recipe, out=finished, extend=2 if keys else 0)
    assert (finished / "evaluation.json").read_bytes() == before


def test_a_run_of_a_comparison_keeps_its_budget(saved_comparison: Path) -> None:
    run = Run(saved_comparison / "control" / "seed0")
    with pytest.raises(RunError, match="whose runs have one budget"):
        train(run.recipe, {"trust": True}, out=run.path, extend=1)


def test_patience_ends_a_run_that_learns_nothing(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    keys = {"data.validation": 0.3, "training.patience": 1, "training.epochs": 40}
    run = train(TINY, {**SHORT, **keys, "training.lr": 0.0}, out=tmp_path)
    ended = len(run.history)
    assert ended < 40
    assert run.finished
    assert run.evaluation["best"]["epoch"] <= ended
    assert any("training.patience" in record.getMessage() for record in log.records)
    with pytest.raises(RunError, match=r"ended by training\.patience"):
        train(run.recipe, out=tmp_path, extend=2)


@pytest.mark.parametrize(
    ("values", "ended"),
    [
        ([1.0], False),
        ([1.0, 0.5], False),
        ([1.0, 0.5, 0.5], True),
        ([1.0, 1.0, 1.0], True),
        ([1.0, 0.5, None, 0.4], True),
        ([1.0, 0.5, 2.0, 0.5], False),
        ([], False),
    ],
)
def test_patience_counts_evaluations_since_the_best(
    values: list[float | None], ended: bool
) -> None:
    records = [
        {"metrics": None if value is None else {"top1": value}, "fidelity": None}
        for value in values
    ]
    patient = Recipe.load(TINY, {"training.patience": 2})
    assert out_of_patience(patient, records, "top1") == ended
    assert not out_of_patience(Recipe.load(TINY), records, "top1")


@pytest.mark.parametrize("keys", [{}, {"training.best": "test"}])
def test_patience_needs_validation_images(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there are none: hold some out by --data\.validation"):
        train(TINY, {**SHORT, "training.patience": 2, **keys}, out=tmp_path / "run")
