"""Steps captured as CUDA graphs train as steps do that are launched one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.banked_runs import banked, counted
from understudy.config.recipe import Recipe
from understudy.experiment import bank_build
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS: dict[str, Any] = {"lshfm": {}, "kd": {"weight": 1.0}, "pefd": {"weight": 1.0}}


def run(wanted: Recipe, out: Path, **changes: Any) -> Run:
    made = {"methods": METHODS, "training.batch": 10, "training.epochs": 3} | changes
    return train(Recipe.load(wanted, made), out=out)


def test_graphs_train_as_single_launches_do(tiny: Recipe, tmp_path: Path) -> None:
    graphs = run(tiny, tmp_path / "graphs")
    eager = run(tiny, tmp_path / "eager", **{"training.graphs": False})
    assert graphs.environment["graphs"]
    assert not eager.environment["graphs"]
    for one, other in zip(graphs.history, eager.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=2e-2)
        assert one["lr"] == pytest.approx(other["lr"])
        assert one["step"] == other["step"]


def test_a_complete_bank_lies_on_the_device(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"methods": METHODS, "data.augment": "flip", "training.batch": 10}
    bank_build.fill(banked(tiny, tmp_path / "bank", **changes))
    with counted(monkeypatch) as seen:
        stored = run(tiny, tmp_path / "stored", **{**changes, "bank.path": str(tmp_path / "bank")})
    assert seen == []
    online = run(tiny, tmp_path / "online", **changes)
    for one, other in zip(stored.history, online.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=2e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_continued_run_goes_on_from_its_momentum(
    tiny: Recipe, tmp_path: Path, optimizer: str
) -> None:
    lr = {"training.optimizer": optimizer, "training.lr": 0.01 if optimizer == "sgd" else 1e-3}
    whole = run(tiny, tmp_path / "whole", **lr)
    again = tmp_path / "again"
    made = {"methods": METHODS, "training.batch": 10, "training.epochs": 3, **lr}
    wanted = Recipe.load(tiny, made)

    class Stop:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **named: None

        def epoch(self, record: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(wanted, out=again, callback=Stop())
    continued = train(wanted, out=again, resume=True)
    for one, other in zip(whole.history, continued.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=2e-2)
