"""The time left follows from finished runs, else from the first epochs, over all runs at once."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.papers import as_in_papers
from understudy.comparison.arms import Job
from understudy.comparison.jobs.forecast import Forecast, in_words
from understudy.config.recipe import Recipe
from understudy.experiment.run_directory import Run

RECIPE = Recipe(training=as_in_papers(epochs=4))


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return [
        Job(arm, seed, replace(RECIPE, name=f"{arm} seed {seed}"), Run(tmp_path / arm / str(seed)))
        for seed in (0, 1)
        for arm in ("control", "kd")
    ]


def finish(job: Job, seconds: float) -> None:
    job.run.path.mkdir(parents=True)
    (job.run.path / "evaluation.json").write_text("{}")
    environment = {"prepare_seconds": 0.0, "digests": {}}
    (job.run.path / "environment.json").write_text(json.dumps(environment))
    epoch = {"epoch": 1, "seconds": seconds, "metrics": None, "fidelity": None, "losses": {}}
    (job.run.path / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")


def test_finished_runs_tell_the_time_before_anything_starts(
    jobs: list[Job], log: pytest.LogCaptureFixture
) -> None:
    forecast = Forecast(jobs, at_once=1)
    assert forecast.seconds_left() is None
    forecast.say_before()
    finish(jobs[0], 100.0)
    assert forecast.seconds_left() == 300.0
    finish(jobs[1], 200.0)
    assert forecast.seconds_left() == 300.0, "100 of the control and 200 of kd"
    assert Forecast(jobs, at_once=2).seconds_left() == 200.0
    forecast.say_before()
    assert log.messages == [
        "How long it takes is known after the first epoch.",
        "About 5 min for 2 of 4 runs, as the 2 finished ones took.",
    ]


def test_the_first_epoch_tells_it_else(
    jobs: list[Job], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    forecast = Forecast(jobs, at_once=2)
    forecast.begin(jobs[0], 0.0)
    forecast.begin(jobs[1], 0.5)  # continued in the middle
    now[0] += 10.0
    forecast.epoch(jobs[0], 1)
    # A run takes 40 s: 30 and 20 are left of the two that began, and two more follow.
    assert forecast.seconds_left() == 70.0
    forecast.epoch(jobs[0], 2)
    assert log.messages == ["About 70 s left for 4 runs, after the first epoch of control seed 0."]


def test_a_control_that_is_only_measured_tells_nothing_of_the_others(jobs: list[Job]) -> None:
    unlabelled = [
        replace(job, recipe=replace(job.recipe, task="none", methods=methods))
        for job, methods in zip(jobs, ({}, {"kd": {}}) * 2, strict=True)
    ]
    forecast = Forecast(unlabelled, at_once=1)
    finish(unlabelled[0], 0.1)
    assert forecast.seconds_left() is None
    finish(unlabelled[1], 200.0)
    assert forecast.seconds_left() == 200.0, "of kd, and nothing of the control"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (70, "70 s"), (100, "2 min"), (7200, "2.0 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
