"""Schedules at the places where the published protocols fall."""

import pytest

from tests.support.papers import as_in_papers
from understudy.config.recipe import Training
from understudy.training import lr_schedule


def rates(training: Training, epochs: list[float], steps: int = 10) -> list[float]:
    return [lr_schedule.learning_rate(training, int(e * steps), steps) for e in epochs]


def test_first_epoch_at_the_lower_rate_is_the_151st() -> None:
    training = as_in_papers(lr=0.05, schedule="step", milestones=(150, 180, 210))
    epochs = [0, 149.9, 150, 179.9, 180, 209.9, 210, 239.9]
    expected = [0.05, 0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5]
    assert rates(training, epochs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "middle"), [("constant", 1.0), ("cosine", 0.5), ("linear", 0.5)]
)
def test_schedules_over_the_whole_run(schedule: str, middle: float) -> None:
    training = as_in_papers(lr=2.0, epochs=10, schedule=schedule)
    end = 1.0 if schedule == "constant" else 0.0
    assert rates(training, [0, 5, 10]) == pytest.approx([2.0, 2.0 * middle, 2.0 * end])


def test_warm_up_rises_by_the_step_and_multiplies_the_schedule() -> None:
    training = as_in_papers(lr=1.0, schedule="constant", warmup_epochs=0.5)
    assert rates(training, [0, 0.1, 0.4, 0.5, 3]) == pytest.approx([0, 0.2, 0.8, 1, 1])
    falling = as_in_papers(lr=1.0, epochs=4, schedule="linear", warmup_epochs=2)
    assert rates(falling, [1, 2, 3]) == pytest.approx([0.375, 0.5, 0.25])


def test_warm_up_can_start_above_zero() -> None:
    assert [lr_schedule.warmup(step, 20, 0.001) for step in (0, 10, 20, 30)] == pytest.approx(
        [0.001, 0.5005, 1, 1]
    )
