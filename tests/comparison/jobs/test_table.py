"""Lines of several runs at once, where there is no terminal: of runs that end, and one a minute."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import Clock
from tests.support.papers import as_in_papers
from understudy.comparison.arms import Job
from understudy.comparison.jobs.agenda import Agenda
from understudy.comparison.jobs.forecast import Forecast
from understudy.comparison.jobs.table import Ended, EpochEnded, JobsTable, Started
from understudy.config.recipe import Recipe
from understudy.experiment.run_directory import Run
from understudy.tasks.classification import Classification

RECIPE = Recipe(training=as_in_papers(epochs=40))


def record(epoch: int, top1: float) -> dict[str, Any]:
    metrics = {"metrics": {"top1": top1}, "fidelity": None}
    return {"epoch": epoch, "images_per_second": 100.0, "losses": {}, **metrics}


def test_a_minute_has_one_line_for_all_runs_and_an_end_has_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    jobs = [
        Job(arm, 0, replace(RECIPE, name=f"{arm} seed 0", methods={arm: {}}), Run(tmp_path / arm))
        for arm in ("kd", "nd", "at")
    ]
    forecast = Forecast(Agenda(jobs), 2)
    table = JobsTable(jobs, forecast, task=Classification(), progress=True, callback=None)
    with table.shown():
        for job in jobs[:2]:
            table.begin(job)
            table.take(job, Started(0.0, at=clock.now))
        for epoch in range(1, 33):
            clock.now += 4.0
            table.take(jobs[0], EpochEnded(record(epoch, 50 + epoch), at=clock.now))
            table.refresh()
        ended = Ended("top1", record(40, 90.0) | {"seconds": 164.0})
        table.take(jobs[0], ended)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "About 5 min left for 3 runs, after the first epoch of kd seed 0.",
        "0 of 3 runs done, 0:04:16 left: kd seed 0 epoch 17/40 top1 66.00, nd seed 0 epoch 1/40",
        "0 of 3 runs done, 0:03:12 left: kd seed 0 epoch 33/40 top1 82.00, nd seed 0 epoch 1/40",
        "kd seed 0                [1/3]  top1 90.00  0:02:44",
        "About 2 min left for 3 runs, after kd seed 0.",
    ]
