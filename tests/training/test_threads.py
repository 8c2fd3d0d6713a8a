"""The threads of a run follow from its student and the machine, and are those it began with."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.small_runs import outcome
from understudy import models
from understudy.config.recipe import Recipe
from understudy.errors import Interrupted, RecipeError
from understudy.experiment.callback import Callback
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.training import hardware, threads


@pytest.mark.parametrize(
    ("name", "options", "small"),
    [
        ("resnet8x4", {}, True),
        ("resnet32x4", {}, False),
        ("timm:resnet18", {}, False),
    ],
)
def test_a_small_student_has_one_thread(
    name: str, options: dict[str, int], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    student = models.find(name, **options)
    assert threads.choose("auto", student) == (1 if small else hardware.cores())
    assert threads.choose(3, student) == 3
    assert threads.choose(None, student) == torch.get_num_threads()


def test_a_number_comes_before_the_environment_and_that_before_the_past(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    student = models.find("resnet8")
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads.choose("auto", student, before=4) == 4
    assert not log.messages
    assert threads.choose("auto", student, before=2) == 4
    assert "began with 2 threads and goes on with 4" in log.text
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.choose("auto", student, before=2) == 2
    assert threads.choose(None, student, before=2) == 2
    assert threads.choose(1, student, before=2) == 1
    with pytest.raises(RecipeError, match="--threads cannot be 0"):
        threads.choose(0, student)


class StopAt(Callback):
    """Stops after the first epoch, as a signal would."""

    def epoch(self, record: dict[str, object]) -> None:
        raise Interrupted("stopped")


def test_a_run_goes_on_with_the_threads_it_began_with(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    tiny = replace(tiny, methods={"kd": {}})
    count = torch.get_num_threads()
    whole = train(tiny, out=tmp_path / "whole", threads=2)
    with pytest.raises(Interrupted):
        train(tiny, out=tmp_path / "parts", threads=2, callback=StopAt())
    parts = train(tiny, out=tmp_path / "parts", resume=True)
    assert parts.environment["threads"] == parts.threads == 2
    assert outcome(parts) == outcome(whole)
    assert torch.get_num_threads() == count
    assert Run(tmp_path / "none").threads is None
