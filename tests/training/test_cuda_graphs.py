"""The step that a GPU captures, run without capture on the CPU, is the step done one by one.

That a capture replays what it recorded is tested on a GPU, by tests/run/test_graphs.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.small_runs import trainer_of
from understudy.config.recipe import Recipe
from understudy.experiment import build
from understudy.training.cuda_graphs import CudaGraphs
from understudy.training.trainer import Trainer

METHODS: dict[str, Any] = {
    "lshfm": {"hashes": 24},
    "kd": {"weight": {"value": 1.0, "warmup_epochs": 2}},
}
# A launch of sixteen steps, single ones, and a smaller step at the end.
SMALL: dict[str, Any] = {"data.images": 203, "training.batch": 10, "methods": METHODS}


class Uncaptured:
    """A launch whose steps are run by the host."""

    def __init__(self, graphs: CudaGraphs, size: int, count: int) -> None:
        self.graphs, self.size, self.count = graphs, size, count
        for group in graphs._optimizer.param_groups:
            group["lr"] = graphs._lr

    def replay(self) -> None:
        for _ in range(self.count):
            self.graphs._run_step(self.size)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.distiller.trainable.parameters()])


@pytest.fixture
def captured(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Trainer]:
    """Make a trainer whose steps are those of a GPU."""

    def make(changes: dict[str, Any]) -> Trainer:
        wanted = Recipe.load(tiny, SMALL | changes)
        trainer = trainer_of(build.experiment(wanted), wanted)
        trainer._graphs = trainer._make_graphs()
        return trainer

    monkeypatch.setattr(CudaGraphs, "_graph", lambda *launch: Uncaptured(*launch))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return make


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_captured_step_is_the_step_done_one_by_one(
    tiny: Recipe, captured: Callable[[dict[str, Any]], Trainer], clip: float | None
) -> None:
    changes = {"training.clip": clip}
    wanted = Recipe.load(tiny, SMALL | changes)
    eager, graphs = trainer_of(build.experiment(wanted), wanted), captured(changes)
    for one, other in zip(eager.fit(), graphs.fit(), strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-12)
        assert other.lr == pytest.approx(one.lr)
        assert other.step == one.step
    assert torch.equal(weights(graphs), weights(eager))


def test_launches_of_an_epoch_and_none_after_its_last_step(
    captured: Callable[[dict[str, Any]], Trainer],
) -> None:
    trainer = captured({})
    assert [trainer.position.step for _ in trainer.steps()] == [16, 17, 18, 19, 20, 21]
    assert trainer.position.images == 203
    # As after a restart from a state that was saved before the epoch was concluded.
    assert list(trainer.steps()) == []
    assert trainer.position.images == 203
