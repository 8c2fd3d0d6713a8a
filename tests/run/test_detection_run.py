"""A run of detection, end to end: trained, interrupted, split and measured like any other."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import ranks
from tests.support.small_runs import Crash, Stop, outcome
from tests.support.small_scenes import Scenes
from understudy.batch import Batch
from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.distillation.distiller import Trainable
from understudy.errors import Diverged, Interrupted
from understudy.experiment import build
from understudy.experiment.evaluate import evaluate
from understudy.experiment.images import Images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.reporting import report
from understudy.training import hardware
from understudy.training.devices import resolve

IMAGES = Images(Scenes(6, seed=0), Scenes(6, seed=1))
DRAWN = {"data.source": "drawn_shapes", "data.root": "6"}
"""Images that a command can name, too."""

SMALL: dict[str, Any] = {
    "backbone": "timm:test_resnet",
    "channels": 64,
    "min_size": 64,
    "max_size": 96,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "fasterrcnn": SMALL | {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_test": 30},
    "retinanet": SMALL,
    "fcos": SMALL,
    "ssdlite": {"backbone": "timm:test_resnet", "size": 96, "extra": [32, 32, 32, 32]},
}
METHODS: dict[str, Any] = {"lshfm": {"hashes": 64}, "nd": {}}
"""Both measure the teacher first."""


def plain(family: str) -> dict[str, Any]:
    return {
        "name": "scenes",
        "task": "detection",
        "data": {"augment": "flip"},
        "student": {"name": family, "options": OPTIONS[family]},
        "training": {"epochs": 1, "batch": 2, "lr": 0.01, "schedule": "constant"},
    }


Teach = Callable[[str], Path]


@pytest.fixture(scope="module")
def teach(tmp_path_factory: pytest.TempPathFactory) -> Teach:
    """Gives the run directory of a trained detector of some family."""
    root = tmp_path_factory.mktemp("teachers")

    def taught(family: str) -> Path:
        done = Run(root / family).begun
        wanted = Recipe.from_dict(plain(family))
        return train(wanted, out=root / family, images=IMAGES, resume=done).path

    return taught


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A distillation on images that a command can name."""
    wanted = Recipe.load(plain("fasterrcnn"), DRAWN)
    teacher = train(wanted, out=tmp_path_factory.mktemp("drawn")).path
    return distilling("fasterrcnn", teacher, DRAWN)


def distilling(family: str, teacher: Path, changes: dict[str, Any] | None = None) -> Recipe:
    given = {"teacher.weights": str(teacher), "methods": METHODS}
    return Recipe.load(plain(family), given | (changes or {}))


@pytest.fixture
def wanted(teach: Teach) -> Recipe:
    return distilling("fasterrcnn", teach("fasterrcnn"))


def changed(wanted: Recipe, changes: dict[str, Any]) -> Recipe:
    return Recipe.load(wanted, changes)


@pytest.fixture(scope="module")
def whole(teach: Teach, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The plain distillation, from end to end."""
    wanted = distilling("fasterrcnn", teach("fasterrcnn"))
    return train(wanted, out=tmp_path_factory.mktemp("whole"), images=IMAGES)


def test_it_is_distilled_and_measured(whole: Run) -> None:
    (epoch,) = whole.history
    own = {"task/classifier", "task/box_reg", "task/objectness", "task/rpn_box_reg"}
    assert set(epoch["losses"]) == own | {"lshfm", "nd", "total"}
    done = whole.evaluation
    assert done["metrics"] == epoch["metrics"]
    assert {"AP", "AP50", "voc_AP50"} <= done["metrics"].keys()
    assert done["teacher"]["metrics"].keys() == done["metrics"].keys()
    assert len(done["per_class"]) == len(done["teacher"]["per_class"]) == len(IMAGES.train.classes)
    assert done["fidelity"].keys() == {"agreement", "overlap"}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("fasterrcnn", {"training.precision": "bf16", "training.channels_last": True}),
        ("retinanet", {"training.ema": 0.9, "training.optimizer": "adamw"}),
        ("fcos", {"training.batch": 4, "training.precision": "auto"}),
        ("ssdlite", {"training.clip": 1.0, "training.batch": 4, "training.accumulate": 2}),
    ],
    ids=["fasterrcnn-bf16-channels_last", "retinanet-ema-adamw", "fcos", "ssdlite-clip-accumulate"],
)
def test_interrupted_in_mid_epoch_it_goes_on_to_the_same_bits(
    teach: Teach, tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    wanted = distilling(family, teach(family), changes | {"training.epochs": 2})
    whole = train(wanted, out=tmp_path / "whole", images=IMAGES)
    torch.rand(7)  # What others draw does not matter.
    with pytest.raises(Interrupted, match="epoch 1, step 1;"):
        train(wanted, out=tmp_path / "cut", images=IMAGES, callback=Stop(1, signal.SIGTERM))
    resumed = train(wanted, out=tmp_path / "cut", images=IMAGES, resume=True)
    assert outcome(resumed) == outcome(whole)


def test_killed_it_goes_on_from_the_last_step_with_any_workers(
    wanted: Recipe, whole: Run, tmp_path: Path
) -> None:
    often = {"training.checkpoint_minutes": 0.0, "data.workers": 2}
    wanted = changed(wanted, often)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, out=tmp_path, images=IMAGES, callback=Crash(2, 0))
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


def test_two_processes_train_one_student(drawn: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(changed(drawn, {"training.batch": 4}).to_yaml())
    command = ["-m", "understudy", "distill", path, "--out", tmp_path / "run", "--device", "cpu"]
    for process in ranks(2, *command):
        process.finish()
    run = Run(tmp_path / "run")
    assert {process["rank"] for process in run.environment["processes"]} == {0, 1}
    again = evaluate(run.path, device="cpu")
    assert again.metrics == pytest.approx(run.evaluation["metrics"])


def test_arms_are_compared_by_ap50(drawn: Recipe, tmp_path: Path) -> None:
    found = compare(drawn, methods=["nd"], seeds=[0], out=tmp_path)
    control, arm = found.arms
    assert found.metric == "AP50"
    assert control["verdict"] is None
    difference = arm["metrics"]["AP50"][0] - control["metrics"]["AP50"][0]
    assert arm["verdict"]["difference"] == pytest.approx(difference)
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "AP50" in page
    assert "data:image/jpeg" in page


def test_a_student_on_a_cpu_is_trained_in_fp32_unless_it_is_told(
    wanted: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda *, cpu: True)
    for asked, given in (("auto", "fp32"), ("bf16", "bf16")):
        training = changed(wanted, {"training.precision": asked}).training
        distiller = build.experiment(wanted, images=IMAGES).distiller
        assert resolve(training, distiller, torch.device("cpu")).precision == given
