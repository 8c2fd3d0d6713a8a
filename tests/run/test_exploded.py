"""A student of NaN is no student: a run ends as diverged, and no file holds NaN."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_runs import TINY
from understudy.errors import Diverged, NetworkError
from understudy.experiment.evaluate import evaluate
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.files import as_json
from understudy.training.finite import not_finite

ONE_STEP = {
    "training.epochs": 1,
    "training.batch": 200,
    "training.schedule": "constant",
    "training.lr": 1e38,
}
"""One step, before which every loss is finite, and after which no weight is."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_weight": 1e4}, r"A weight of the student became NaN or infinite in epoch 1"),
        ({"task_weight": 1e4, "training.ema": 0.5}, "A weight of the student became"),
        ({"training.lr": 1e30}, "Outputs of the student .* NaN or infinite|A weight"),
        ({"training.optimizer": "adamw"}, "A weight of the student|Outputs of the student"),
    ],
)
def test_a_student_that_explodes_in_the_last_step_diverged(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    from understudy.config.recipe import Recipe

    with pytest.raises(Diverged, match=words):
        train(Recipe.load(TINY, ONE_STEP | changes), out=tmp_path)
    run = Run(tmp_path)
    assert run.diverged
    assert not run.finished
    assert not (tmp_path / "student.safetensors").exists()
    assert not list(tmp_path.rglob("state.ckpt"))
    with pytest.raises(Diverged, match="diverged"):
        train(Recipe.load(TINY, ONE_STEP | changes), out=tmp_path, resume=True)


def test_a_network_that_explodes_is_not_measured(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in teacher.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    weights = load_file(run / "student.safetensors")
    last = [name for name in weights if name.endswith("weight")][-1]
    weights[last] *= torch.inf
    classes = Run(run).environment["classes"]
    save_file(weights, run / "student.safetensors", metadata={"classes": json.dumps(classes)})
    with pytest.raises(NetworkError, match="holds infinity: the training that wrote it diverged"):
        evaluate(run, {"trust": True})


def test_a_detector_of_nan_has_no_average_precision() -> None:
    from tests.run.test_detection_run import OPTIONS
    from tests.support.small_scenes import Scenes
    from understudy import tasks
    from understudy.config.recipe import Training
    from understudy.data import Loader
    from understudy.data.box_views import ObjectViews
    from understudy.experiment.outputs import collect
    from understudy.models import detection
    from understudy.training.devices import accelerator

    scenes = Scenes(2, seed=0)
    student = detection.find("fcos", num_classes=len(scenes.classes), options=OPTIONS["fcos"])
    with torch.no_grad():
        next(student.parameters()).mul_(torch.nan)
    views = ObjectViews(scenes, augment="none", seed=0, jitter=0.0)
    loader = Loader(views, scenes.labels, batch=2, seed=0, shuffle=False)
    devices = accelerator(Training(), "cpu", student=student)
    for role, error in (("student", Diverged), ("teacher", NetworkError)):
        batches = loader.single_pass(augmented=False)
        with pytest.raises(error, match=f"Weights of the {role} .* are NaN"):
            collect(student, batches, devices, tasks.find("detection"), role=role)


def test_weights_and_statistics_are_checked_and_masks_are_not() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    network.register_buffer("mask", torch.full((2,), -torch.inf))
    assert not_finite(network) == []
    network[1].running_var[0] = torch.nan
    with torch.no_grad():
        network[0].bias[1] = torch.inf
    assert not_finite(network) == ["0.bias", "1.running_var"]
    assert not_finite(torch.nn.Identity()) == []


def test_json_has_no_nan() -> None:
    content = {
        "a": float("nan"),
        "b": [1.5, -np.inf, (float("inf"),)],
        "c": {"d": np.float64("nan")},
    }
    assert json.loads(as_json(content)) == {"a": None, "b": [1.5, None, [None]], "c": {"d": None}}


def test_all_json_is_written_by_one_function() -> None:
    import understudy

    root = Path(understudy.__file__).parent
    # These compare texts, or quote them.
    texts = {
        "config/recipe.py",
        "bank/manifest.py",
        "data/replaced.py",  # a line at a time, as faults are met
        "experiment/student_file/loading_lines.py",
        "checks/finding.py",
        "cli/list_flags.py",
        "data/named_transforms.py",
    }
    allowed = {"files.py"} | texts
    writers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "json.dump" in path.read_text(encoding="utf-8")
    }
    assert writers <= allowed
