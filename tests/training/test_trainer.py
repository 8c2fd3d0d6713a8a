"""What every key of `training` does, seen in the weights it leaves."""

import json
import math
import sys
from functools import partialmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.support.plain_cnn import factory
from tests.support.small_runs import CNN, trainer_of
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment import build
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.training.trainer import Epoch, Trainer

PLAIN = {"training.momentum": 0.0, "training.weight_decay": 0.0, "training.schedule": "constant"}
SHORT = {"training.epochs": 1, "data.images": 100}

WHOLE_GRAPHS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
"""True if the compiler follows dictionaries of features; that of torch 2.6 breaks graphs there."""


class Seen:
    """Keeps what a run shows while it trains."""

    def __init__(self) -> None:
        self.lrs: list[float] = []
        self.states: list[dict[str, Tensor]] = []
        self.files: list[bytes] = []

    def series(self, runs: int) -> None: ...

    def start(self, trainer: Trainer, name: str) -> None:
        self.trainer = trainer

    def step(self, trainer: Trainer) -> None:
        self.lrs.append(trainer.optimizer.param_groups[0]["lr"])
        self.states.append(weights(trainer))

    def epoch(self, record: dict[str, Any]) -> None: ...

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None: ...


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in trainer.distiller.student.state_dict().items()}


def changed(wanted: Recipe, changes: dict[str, Any]) -> Recipe:
    return Recipe.load(wanted, changes)


def trained(wanted: Recipe) -> tuple[Trainer, list[Epoch]]:
    """A trainer at the end of its epochs, without a run directory."""
    trainer = trainer_of(build.experiment(wanted), wanted)
    return trainer, list(trainer.fit())


def apart(one: Trainer, other: Trainer) -> float:
    """The largest difference between two students' weights."""
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("parts", [2, 5])
def test_accumulated_batches_equal_one_large_batch(tiny: Recipe, parts: int) -> None:
    # The selective form takes its mean over the correct images of each part.
    methods = {"lshfm": {"hashes": 64, "selective": False}, "kd": {}, "pefd": {}}
    wanted = changed(tiny, SHORT | {"methods": methods, "data.images": 128})
    whole, epochs = trained(wanted)
    split, same = trained(changed(wanted, {"training.accumulate": parts}))
    assert apart(whole, split) < 1e-6
    assert same[0].losses == pytest.approx(epochs[0].losses, rel=1e-5)


def test_layout_and_precision_change_the_weights_by_rounding_only(tiny: Recipe) -> None:
    plain, _ = trained(changed(tiny, SHORT))
    last, _ = trained(changed(tiny, SHORT | {"training.channels_last": True}))
    assert 0 <= apart(plain, last) < 1e-5
    assert last.distiller.student.module.stem[0].weight.is_contiguous(
        memory_format=torch.channels_last
    )
    half, _ = trained(changed(tiny, SHORT | {"training.precision": "bf16"}))
    assert 1e-6 < apart(plain, half) < 0.05


def test_clipping_limits_the_step(tiny: Recipe, tmp_path: Path) -> None:
    seen, clip = Seen(), 0.01
    wanted = changed(tiny, SHORT | PLAIN | {"training.clip": clip, "methods": {"kd": {}}})
    train(wanted, out=tmp_path, callback=seen)
    for before, after in zip(seen.states[:-1], seen.states[1:], strict=True):
        step = math.sqrt(sum(float((after[k] - before[k]).square().sum()) for k in before))
        assert step == pytest.approx(wanted.training.lr * clip, rel=1e-3)


def test_the_moving_average_is_what_is_evaluated_and_saved(tiny: Recipe, tmp_path: Path) -> None:
    seen, decay = Seen(), 0.7
    wanted = changed(tiny, SHORT | {"training.ema": decay, "methods": {"kd": {}}})
    run = train(wanted, out=tmp_path, callback=seen)
    mean = seen.states[0]
    for state in seen.states[1:]:
        mean = {name: decay * mean[name] + (1 - decay) * state[name] for name in mean}
    saved = load_file(run.path / "student.safetensors")
    for name, value in saved.items():
        torch.testing.assert_close(value, mean[f"module.{name}"])
        assert not torch.equal(value, seen.states[-1][f"module.{name}"])
    trained = build.trained_student(wanted, run.path / "student.safetensors")
    images = torch.cat([batch.images for batch in trained.test.single_pass(augmented=False)])
    right = (trained.student.eval()(images).argmax(1) == trained.test.labels).float().mean()
    assert run.evaluation["metrics"]["top1"] == pytest.approx(100 * float(right), abs=0.05)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training.schedule": "cosine"}, lambda s: 0.05 * (1 + math.cos(math.pi * s / 12)) / 2),
        (
            {"training.schedule": "step", "training.milestones": [1, 2]},
            lambda s: 0.05 * 0.1 ** (s // 4),
        ),
        (
            {"training.schedule": "constant", "training.warmup_epochs": 1.5},
            lambda s: 0.05 * min(1, s / 6),
        ),
    ],
    ids=["cosine", "step", "warmup"],
)
def test_the_learning_rate_follows_its_schedule_at_every_step(
    tiny: Recipe, tmp_path: Path, changes: dict[str, Any], expected: Any
) -> None:
    seen = Seen()
    wanted = changed(tiny, {"data.images": 128, "training.epochs": 3, "methods": {}} | changes)
    train(wanted, out=tmp_path, callback=seen)
    assert seen.lrs == pytest.approx([expected(s) for s in range(12)], abs=1e-12)


def test_compiled_training_equals_eager_training(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default back end builds C++ for half a minute; this one runs the very graphs it is given.
    compiler = partialmethod(torch.nn.Module.compile, backend="aot_eager", fullgraph=WHOLE_GRAPHS)
    monkeypatch.setattr(torch.nn.Module, "compile", compiler)
    eager, _ = trained(changed(tiny, SHORT))
    compiled, epochs = trained(changed(tiny, SHORT | {"training.compile": True}))
    assert apart(eager, compiled) < 1e-4
    assert math.isfinite(epochs[0].losses["total"])


def test_dropout_is_on_in_training_and_depends_on_the_seed_alone(tiny: Recipe) -> None:
    options = {"student.options": {"width": 8, "dropout": 0.5}, "methods": {}} | SHORT
    first, _ = trained(changed(tiny, options))
    torch.manual_seed(123)
    again, _ = trained(changed(tiny, options))
    without, _ = trained(changed(tiny, {"methods": {}} | SHORT))
    assert apart(first, again) == 0
    assert apart(first, without) > 1e-4


def test_every_n_epochs_and_the_last_are_evaluated(tiny: Recipe, tmp_path: Path) -> None:
    wanted = changed(tiny, {"training.epochs": 3, "training.evaluate_every": 2, "methods": {}})
    epochs = train(wanted, out=tmp_path).history
    assert [epoch["metrics"] is not None for epoch in epochs] == [False, True, True]
    assert [epoch["fidelity"] is not None for epoch in epochs] == [False, True, True]


class Spoils(Seen):
    """Makes the student forget everything in the second epoch."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def step(self, trainer: Trainer) -> None:
        if trainer.position.epoch == 1:
            torch.nn.init.zeros_(trainer.distiller.student.classifier_weight)

    def epoch(self, record: dict[str, Any]) -> None:
        self.files.append((self.run.path / "student.safetensors").read_bytes())


def test_best_holds_the_best_epoch(tiny: Recipe, tmp_path: Path) -> None:
    keys = {"training.epochs": 2, "training.best": "test", "data.images": 400}
    keys |= {"data.source": "fashion", "data.root": ""}  # of so many that one epoch shows
    wanted = changed(tiny, keys | {"methods": {"kd": {}}})
    seen = Spoils(Run(tmp_path))
    run = train(wanted, out=tmp_path, callback=seen)
    first, last = (epoch["metrics"]["top1"] for epoch in run.history)
    assert first > last
    assert (tmp_path / "best" / "student.safetensors").read_bytes() == seen.files[0]
    assert (tmp_path / "student.safetensors").read_bytes() == seen.files[1] != seen.files[0]


def test_the_student_file_is_the_plain_network_with_its_embedding_folded(
    tiny: Recipe, tmp_path: Path
) -> None:
    seen = Seen()
    run = train(changed(tiny, SHORT), out=tmp_path, callback=seen)
    student = seen.trainer.student.eval()
    assert student.shapes["penultimate"] == (32,), "the teacher's dimension, by the embedding"
    plain = factory(width=8).eval()
    plain.load_state_dict(load_file(run.path / "student.safetensors"), strict=True)
    assert plain.fc.in_features == 16
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    normalised = (images - student.get_buffer("_mean")) / student.get_buffer("_std")
    torch.testing.assert_close(plain(normalised), student(images), rtol=1e-5, atol=1e-5)
    with safe_open(run.path / "student.safetensors", framework="pt") as file:
        classes = json.loads(file.metadata()["classes"])
    assert classes == run.environment["classes"]
    assert classes[:2] == ["ankle_boot", "bag"]


def test_tensorboard_gets_losses_and_metrics(tiny: Recipe, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = changed(tiny, {"data.images": 100, "training.trackers": ["tensorboard"]})
    run = train(wanted, out=tmp_path)
    events = EventAccumulator(str(tmp_path / "tiny")).Reload()
    for line, value in zip(run.history, events.Scalars("losses/lshfm"), strict=True):
        assert value.step == line["step"]
        assert value.value == pytest.approx(line["losses"]["lshfm"], rel=1e-6)
    assert {"metrics/top1", "fidelity/agreement", "lr"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(tiny: Recipe, tmp_path: Path, tracker: str) -> None:
    if find_spec(tracker):
        pytest.skip(f"{tracker} is installed here")
    with pytest.raises(RecipeError, match=f"pip install '{tracker}>="):
        train(changed(tiny, {"training.trackers": [tracker]}), out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_cpu_does_not_train_in_fp16(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set training\.precision to bf16 or fp32"):
        train(changed(tiny, {"training.precision": "fp16"}), out=tmp_path, device="cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restarts its count of the peak")
def test_memory_is_that_of_one_run(tiny: Recipe, tmp_path: Path) -> None:
    ballast = torch.ones(100_000_000)
    large = train(changed(tiny, SHORT), out=tmp_path / "large").evaluation["memory_mb"]
    del ballast
    small = train(changed(tiny, SHORT), out=tmp_path / "small").evaluation["memory_mb"]
    assert large - small == pytest.approx(400, abs=100)


def test_the_name_of_the_teacher_is_that_of_its_network(tiny: Recipe, tmp_path: Path) -> None:
    assert train(changed(tiny, SHORT), out=tmp_path).evaluation["teacher"]["name"] == CNN
