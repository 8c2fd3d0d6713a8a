"""A run of detection, end to end: trained, interrupted, split and measured like any other."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Stop, outcome
from small_scenes import Scenes

from understudy import build, recipe
from understudy.batch import Batch
from understudy.comparison import compare
from understudy.distiller import Trainable
from understudy.engine import Trainer
from understudy.errors import Diverged, Interrupted
from understudy.recipe import Recipe
from understudy.reporting import report
from understudy.run import Run, evaluate, train

IMAGES = Scenes(6, seed=0), Scenes(6, seed=1)
FEW = {"train": 50, "test": 30}
SMALL: dict[str, Any] = {
    "min_size": 64,
    "max_size": 96,
    "box_batch_size_per_image": 16,
    "rpn_batch_size_per_image": 16,
    **{f"rpn_pre_nms_top_n_{mode}": count for mode, count in FEW.items()},
    **{f"rpn_post_nms_top_n_{mode}": count for mode, count in FEW.items()},
    "box_detections_per_img": 10,
}
PLAIN: dict[str, Any] = {
    "name": "scenes",
    "task": "detection",
    "data": {"augment": "flip"},
    "student": {"name": "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", "options": SMALL},
    "training": {"epochs": 1, "batch": 2, "lr": 0.01, "schedule": "constant"},
}


DRAWN = {"data.source": "shapes", "data.root": "6"}
"""Images that a command can name, too."""


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a trained detector."""
    return train(recipe.parse(PLAIN), out=tmp_path_factory.mktemp("runs"), images=IMAGES).path


@pytest.fixture(scope="module")
def drawn_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for images that a command can name."""
    return train(recipe.parse(PLAIN, DRAWN), out=tmp_path_factory.mktemp("drawn")).path


def distilling(teacher: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """A short distillation by two methods, both of which measure the teacher first."""
    methods = {"lshfm": {"hashes": 64}, "nd": {}}
    given = {"teacher.weights": str(teacher), "methods": methods}
    return recipe.parse(PLAIN, given | (changes or {}))


@pytest.fixture
def wanted(detector: Path) -> Recipe:
    return distilling(detector)


def changed(wanted: Recipe, changes: dict[str, Any]) -> Recipe:
    return recipe.parse(recipe.plain(wanted), changes)


@pytest.fixture(scope="module")
def whole(detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The plain distillation, from end to end."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return train(distilling(detector), out=out, images=IMAGES)


def test_it_is_distilled_and_measured(whole: Run) -> None:
    (epoch,) = whole.epochs()
    own = {"task/classifier", "task/box_reg", "task/objectness", "task/rpn_box_reg"}
    assert set(epoch["losses"]) == own | {"lshfm", "nd", "total"}
    done = whole.evaluation
    assert done["metrics"] == epoch["metrics"]
    assert {"AP", "AP50", "voc_AP50"} <= done["metrics"].keys()
    assert done["teacher"]["metrics"].keys() == done["metrics"].keys()
    assert len(done["per_class"]) == len(done["teacher"]["per_class"]) == len(IMAGES[0].classes)
    assert done["fidelity"].keys() == {"agreement", "overlap"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training.ema": 0.9, "training.accumulate": 2, "training.optimizer": "adamw"},
        {"training.precision": "bf16", "training.channels_last": True, "training.clip": 1.0},
    ],
    ids=["plain", "ema-accumulate-adamw", "bf16-channels_last-clip"],
)
def test_interrupted_in_mid_epoch_it_goes_on_to_the_same_bits(
    wanted: Recipe, whole: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    wanted = changed(wanted, changes | ({"training.batch": 4} if changes else {}))
    whole = train(wanted, out=tmp_path / "whole", images=IMAGES) if changes else whole
    torch.rand(7)  # What others draw does not matter.
    with pytest.raises(Interrupted, match="epoch 1, step 1;"):
        train(wanted, out=tmp_path / "cut", images=IMAGES, watcher=Stop(1, signal.SIGTERM))
    resumed = train(wanted, out=tmp_path / "cut", images=IMAGES, resume=True)
    assert outcome(resumed) == outcome(whole)


class Crash(Stop):
    """Ends a run after some steps as a lost machine would: with nothing done about it."""

    def step(self, trainer: Trainer) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_killed_it_goes_on_from_the_last_step_with_any_workers(
    wanted: Recipe, whole: Run, tmp_path: Path
) -> None:
    often = {"training.checkpoint_minutes": 0.0, "data.workers": 2}
    wanted = changed(wanted, often)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, out=tmp_path, images=IMAGES, watcher=Crash(2, 0))
    assert not Run(tmp_path).finished
    assert outcome(train(wanted, out=tmp_path, images=IMAGES, resume=True)) == outcome(whole)


def test_a_step_that_does_not_fit_is_split(
    wanted: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = changed(wanted, {"training.batch": 6})
    told = changed(wanted, {"training.accumulate": 2})
    known = train(told, out=tmp_path / "told", images=IMAGES)
    forward = Trainable.forward

    def limited(self: Trainable, batch: Batch, teacher: Any) -> Any:
        losses = forward(self, batch, teacher)
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses

    monkeypatch.setattr(Trainable, "forward", limited)
    split = train(wanted, out=tmp_path / "split", images=IMAGES)
    assert outcome(split) == outcome(known)


def test_a_loss_that_is_not_finite_is_named(wanted: Recipe, tmp_path: Path) -> None:
    wanted = changed(wanted, {"methods": {}, "training.lr": 1e18})
    with pytest.raises(
        Diverged, match=r"The loss 'task/[a-z_]+' became NaN or infinite in epoch 1"
    ):
        train(wanted, out=tmp_path, images=IMAGES)
    assert "task/" in Run(tmp_path).diverged


def test_what_methods_measure_depends_on_the_images_alone(wanted: Recipe) -> None:
    found = []
    for seed in (0, 1):
        made = build.experiment(wanted, images=IMAGES)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made.prepare()
        assert torch.equal(torch.get_rng_state(), before)
        found.append(made.distiller.trainable.methods.state_dict())
    first, second = found
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_two_processes_train_one_student(drawn_teacher: Path, tmp_path: Path) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(recipe.dump(distilling(drawn_teacher, DRAWN)))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "understudy", "distill", str(recipe_file), "--out", str(tmp_path / "run"),
         "--training.batch", "4", "--device", "cpu"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    assert {process["rank"] for process in run.environment["processes"]} == {0, 1}
    again = evaluate(run.path, device="cpu")
    assert again.metrics == pytest.approx(run.evaluation["metrics"])


def test_arms_are_compared_by_ap50(drawn_teacher: Path, tmp_path: Path) -> None:
    found = compare(distilling(drawn_teacher, DRAWN), methods=["nd"], seeds=[0], out=tmp_path)
    control, arm = found.arms
    assert found.metric == "AP50"
    assert control["verdict"] is None
    difference = arm["metrics"]["AP50"][0] - control["metrics"]["AP50"][0]
    assert arm["verdict"]["difference"] == pytest.approx(difference)
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "AP50" in page
    assert "data:image/jpeg" in page
