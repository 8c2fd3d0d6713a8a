"""The time left follows from finished runs, else from the first epochs, over all runs at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.papers import as_in_papers
from understudy.comparison.arms import Job
from understudy.comparison.jobs.agenda import Agenda
from understudy.comparison.jobs.forecast import Forecast, in_words
from understudy.comparison.jobs.schedule import Failure
from understudy.config.recipe import OneTeacher, Recipe
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


def diverge(job: Job) -> None:
    (job.run.path / "evaluation.json").unlink()
    (job.run.path / "diverged.txt").write_text("The loss became NaN.")


def test_finished_runs_tell_the_time_before_anything_starts(
    jobs: list[Job], log: pytest.LogCaptureFixture
) -> None:
    forecast = Forecast(Agenda(jobs), at_once=1)
    assert forecast.seconds_left() is None
    forecast.say_before()
    finish(jobs[0], 100.0)
    assert forecast.seconds_left() == 300.0
    finish(jobs[1], 200.0)
    assert forecast.seconds_left() == 300.0, "100 of the control and 200 of kd"
    assert Forecast(Agenda(jobs), at_once=2).seconds_left() == 200.0
    forecast.say_before()
    assert log.messages == [
        "How long it takes is known after the first epoch.",
        "About 5 min for 2 of 4 runs, as the 2 finished ones took.",
    ]


def test_the_first_epoch_tells_it_else(
    jobs: list[Job], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    forecast = Forecast(Agenda(jobs), at_once=2)
    forecast.begin(jobs[0], 0.0)
    forecast.begin(jobs[1], 0.5)  # continued in the middle
    clock.now += 10.0
    forecast.epoch(jobs[0], 1)
    # A run takes 40 s: 30 and 20 are left of the two that began, and two more follow.
    assert forecast.seconds_left() == 70.0
    forecast.epoch(jobs[0], 2)
    assert log.messages == [
        "About 70 s left for 4 runs, after the first epoch of control seed 0; arms with a method "
        "take longer."
    ]


def test_building_and_measuring_count_besides_the_epochs(
    jobs: list[Job], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    unlabelled = [
        replace(job, recipe=replace(job.recipe, task="none", methods=methods))
        for job, methods in zip(jobs, ({}, {"kd": {}}) * 2, strict=True)
    ]
    forecast = Forecast(Agenda(unlabelled), at_once=1)
    forecast.hand(unlabelled[0])
    forecast.begin(unlabelled[0], 0.0)
    clock.now += 3.0
    finish(unlabelled[0], 3.0)
    forecast.end(unlabelled[0])
    assert forecast.seconds_left() is None, "a control that is only measured tells nothing"
    # The networks are built in 8 s, an epoch from the full bank takes half a second.
    forecast.hand(unlabelled[1])
    clock.now += 8.0
    forecast.begin(unlabelled[1], 0.0)
    clock.now += 0.5
    forecast.epoch(unlabelled[1], 1)
    assert forecast.seconds_left() == pytest.approx(0.75 * 10 + 10)
    # The evaluation after the last epoch takes another 2 s, which the second seed will take too.
    clock.now += 3.5
    finish(unlabelled[1], 2.0)
    forecast.end(unlabelled[1])
    assert forecast.seconds_left() == pytest.approx(12.0)
    assert log.messages == ["About 18 s left for 3 runs, after the first epoch of kd seed 0."]
    # Of these 2 s, those that are left are said while the second seed is evaluated.
    forecast.hand(unlabelled[3])
    forecast.begin(unlabelled[3], 0.0)
    clock.now += 11.0
    forecast.move(unlabelled[3], 1.0)
    assert forecast.seconds_left() == pytest.approx(1.0)
    forecast.end(unlabelled[3])
    assert log.messages[1:] == []


def test_an_arm_of_several_teachers_is_one_with_a_method(
    jobs: list[Job], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    teachers = {"dino": OneTeacher("resnet20", methods={"kd": {}})}
    job = replace(jobs[1], recipe=replace(jobs[1].recipe, teachers=teachers))
    forecast = Forecast(Agenda([job]), at_once=1)
    forecast.begin(job, 0.0, at=990.0)
    forecast.epoch(job, 1)
    assert log.messages == ["About 30 s left for 1 run, after the first epoch of kd seed 0."]


def test_events_that_are_read_late_do_not_shorten_an_epoch(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch).now = 1040.0
    forecast = Forecast(Agenda(jobs), at_once=1)
    # Both lay in the pipe while another worker was started.
    forecast.begin(jobs[0], 0.0, at=1000.0)
    forecast.epoch(jobs[0], 1, at=1010.0)
    assert forecast.seconds_left() == 30.0 + 3 * 40.0


def test_an_arm_tells_of_other_arms_better_than_the_control(
    jobs: list[Job], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    jobs = [
        replace(job, recipe=replace(job.recipe, methods={} if job.arm == "control" else {"kd": {}}))
        for job in jobs
    ]
    pefd = replace(jobs[1], arm="pefd", recipe=replace(jobs[1].recipe, name="pefd seed 0"))
    forecast = Forecast(Agenda([*jobs, replace(pefd, run=Run(pefd.run.path / "pefd"))]), at_once=1)
    for job, seconds in ((jobs[0], 4.0), (jobs[1], 20.0)):
        forecast.hand(job)
        forecast.begin(job, 0.0)
        clock.now += seconds / 4
        forecast.epoch(job, 1)
        clock.now += 3 * seconds / 4
        finish(job, seconds)
        forecast.end(job)
    # 4 s of the control, 20 s of kd, and as long for pefd.
    assert forecast.seconds_left() == pytest.approx(44.0)
    assert [message.partition(", ")[2] for message in log.messages] == [
        "after the first epoch of control seed 0; arms with a method take longer.",
        "after the first epoch of kd seed 0.",
    ]
    clock.now += 60.0
    forecast.end(jobs[1])
    assert log.messages[-1].endswith(" left for 3 runs, after kd seed 0.")


def test_a_control_that_is_only_measured_tells_nothing_of_the_others(jobs: list[Job]) -> None:
    unlabelled = [
        replace(job, recipe=replace(job.recipe, task="none", methods=methods))
        for job, methods in zip(jobs, ({}, {"kd": {}}) * 2, strict=True)
    ]
    forecast = Forecast(Agenda(unlabelled), at_once=1)
    finish(unlabelled[0], 0.1)
    assert forecast.seconds_left() is None
    finish(unlabelled[1], 200.0)
    assert forecast.seconds_left() == 200.0, "of kd, and nothing of the control"


def test_runs_that_are_not_trained_again_take_no_time(jobs: list[Job]) -> None:
    agenda = Agenda(jobs)
    forecast = Forecast(agenda, at_once=1)
    finish(jobs[0], 100.0)
    finish(jobs[1], 200.0)
    assert forecast.seconds_left() == 300.0
    agenda.end(jobs[2], Failure("OutOfMemory", "The GPU has no memory left."))
    assert forecast.seconds_left() == 200.0
    # An arm that diverged is not trained with the seeds behind.
    diverge(jobs[1])
    assert not forecast.seconds_left()


def test_a_run_under_way_takes_time_though_its_arm_diverged_with_an_earlier_seed(
    jobs: list[Job],
) -> None:
    agenda = Agenda(jobs)
    forecast = Forecast(agenda, at_once=2)
    under_way = [agenda.next() for _ in jobs]
    assert under_way == jobs
    finish(jobs[0], 100.0)
    finish(jobs[2], 100.0)
    finish(jobs[1], 200.0)
    diverge(jobs[1])
    assert agenda.left == [jobs[3]]
    assert forecast.seconds_left() == 100.0
    agenda.end(jobs[3], Failure("Crash", "Its process was ended by SIGSEGV."))
    assert agenda.left == []


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (70, "70 s"), (100, "2 min"), (7200, "2.0 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
