"""Faults of teachers and inputs, each in two data sets or tasks: found and mended."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.object_directories import detected
from tests.support.planted_faults import (
    SMALL,
    Fault,
    assert_found_and_mended,
    findings,
)
from tests.support.planted_teachers import (
    MEAN,
    STD,
    DataSetMaker,
    clothes,
    distillation,
    marks,
    signs,
    spoiled,
)
from tests.support.small_runs import CNN
from understudy import tasks
from understudy.checks import detector_accuracy, teacher_features
from understudy.checks.examine import examine
from understudy.checks.examined import Examined
from understudy.config.recipe import Recipe
from understudy.data.sources import drawn_shapes
from understudy.experiment.train import train


def taught(dataset: DataSetMaker, kind: str = "none", **keys: Any) -> Callable[[Path], Any]:
    """A distillation from a teacher with a fault, or with faulty keys."""

    def make(folder: Path) -> Mapping[str, Any]:
        made = distillation(dataset, spoiled(dataset, folder, kind))
        return made | {key.replace("__", "."): value for key, value in keys.items()}

    return make


ZERO, ONE = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
BYTES = {"mean": [255 * x for x in MEAN], "std": [255 * x for x in STD]}
REVERSED = {data: [*reversed(data().classes)] for data in (clothes, signs, marks)}
FITTED = {
    clothes: None,
    signs: ["blue disc", "red disc", "green bar", "blue bar", "green disc", "red bar"],
    marks: ["blue", "disc", "red", "bar", "green"],
}
"""Class of each logit that `spoiled` shuffles."""

TEACHERS = [
    *(
        Fault(
            f"no normalisation, {data.__name__}",
            "teacher_accuracy",
            taught(data, teacher__mean=ZERO, teacher__std=ONE),
            ["with ImageNet's normalisation"],
            {"teacher.mean": MEAN, "teacher.std": STD},
            level="error",
        )
        for data in (clothes, signs, marks)
    ),
    *(
        Fault(
            f"images of {size} pixels, {data.__name__}",
            "teacher_accuracy",
            taught(data, teacher__size=size),
            ["with images of 32 pixels"],
            {"teacher.size": 32},
        )
        for data, size in ((clothes, 64), (signs, 128))
    ),
    *(
        Fault(
            f"reversed classes, {data.__name__}",
            "teacher_accuracy",
            taught(data, "reversed"),
            ["with its classes in another order (reversed)"],
            {"teacher.classes": REVERSED[data]},
            level=level,
        )
        for data, level in ((clothes, "error"), (signs, "error"), (marks, "warning"))
    ),
    *(
        Fault(
            f"shuffled classes, {data.__name__}",
            "teacher_accuracy",
            taught(data, "shuffled"),
            ["with its classes in another order (that fits these images best)"],
            {"teacher.classes": FITTED[data]},
            level=level,
        )
        for data, level in ((signs, "error"), (marks, "warning"))
    ),
    *(
        Fault(
            f"blue before red, {data.__name__}",
            "teacher_accuracy",
            taught(data, "bgr"),
            ["with channels in the order BGR"],
            level="error",
        )
        for data in (signs, marks)
    ),
    *(
        Fault(
            f"new classifier, {data.__name__}",
            "reset_head",
            taught(data, "head"),
            ["looks as if no training had changed it", "and kd reads its logits"],
            level="error",
        )
        for data in (clothes, signs, marks)
    ),
    *(
        Fault(
            f"statistics of bytes, {data.__name__}",
            "network_inputs",
            taught(data, student__mean=BYTES["mean"], student__std=BYTES["std"]),
            ["the images of the student have the mean", "is for values from 0 to 255"],
            {"student.mean": MEAN, "student.std": STD},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"larger than asked for, {data.__name__}",
            "network_inputs",
            taught(data, student={"name": "timm:test_resnet"}),
            ["The student enlarges the images of 32 pixels to 160", "25 times as much"],
            {"student.size": 32},
        )
        for data in (clothes, marks)
    ),
    *(
        Fault(
            f"untrained features, {data.__name__}",
            "teacher_features",
            taught(data, "features", methods={"pefd": {}}),
            ["A linear probe", "tells no more of these classes than that of an untrained"],
        )
        for data in (clothes, marks)
    ),
]


@pytest.mark.parametrize("fault", TEACHERS, ids=str)
def test_a_planted_fault_is_found_with_the_fix_that_mends_it(fault: Fault, tmp_path: Path) -> None:
    assert_found_and_mended(fault, tmp_path)


def test_of_few_images_no_feature_is_judged(tmp_path: Path) -> None:
    weights = spoiled(signs, tmp_path, "none")
    recipe = distillation(
        signs,
        weights,
    )
    root = Path(shutil.copytree(signs().keys["root"], tmp_path / "signs"))
    for folder in (root / "test").iterdir():
        for picture in sorted(folder.iterdir())[5:]:
            picture.unlink()
    recipe |= {"data": {"source": "folder", "root": str(root)}}
    examined = Examined(Recipe.load(SMALL, recipe), device="cpu")
    (finding,) = teacher_features.check(examined)
    assert finding.level == "note"
    assert "30 test images are fewer than the 40" in finding.message


FLIPPED = """
from tests.support.plain_cnn import PlainCNN
from torch import nn
from understudy.models import weights

class Flipped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.flip(1))

def factory(num_classes):
    network = PlainCNN(num_classes, 16, 0.0, True, 0)
    weights.load(network, "{file}")
    return Flipped(network)
"""


@pytest.mark.parametrize("data", [signs, marks])
def test_a_function_that_reverses_the_channels_mends_them(
    data: DataSetMaker, tmp_path: Path
) -> None:
    recipe = Recipe.load(SMALL, taught(data, "bgr")(tmp_path))
    assert "`images.flip(1)`" in findings(recipe, "teacher_accuracy")[0].advice
    (tmp_path / "flipped.py").write_text(FLIPPED.format(file=recipe.teacher.weights))
    keys = {"name": f"{tmp_path}/flipped.py:factory", "weights": "own", "options": {}}
    mended = {f"teacher.{key}": value for key, value in keys.items()}
    assert not findings(Recipe.load(recipe, mended), "teacher_accuracy")


@pytest.mark.parametrize("data", [signs, marks])
def test_training_a_new_classifier_mends_it(data: DataSetMaker, tmp_path: Path) -> None:
    recipe = Recipe.load(SMALL, taught(data, "head")(tmp_path))
    (finding,) = findings(recipe, "reset_head")
    assert f"understudy train --student.name {CNN} --student.weights" in finding.advice
    teacher = Recipe.load(recipe, {"methods": {}, "student": recipe.to_dict()["teacher"]})
    run = train(Recipe.load(teacher, {"teacher": "", "training.lr": 0.1}), out=tmp_path / "run")
    mended = Recipe.load(recipe, {"teacher.weights": str(run.path)})
    assert not findings(mended, "reset_head")


ENDS_IN = """
from tests.support.plain_cnn import PlainCNN

class Ending(PlainCNN):
    def forward(self, images):
        return super().forward(images){end}

def factory(num_classes):
    return Ending(num_classes, 8, 0.0, False, 0)
"""


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
    ("data", "end", "name"),
    [(signs, ".softmax(1)", "softmax"), (marks, ".sigmoid()", "sigmoid")],
    ids=["softmax", "sigmoid"],
)
def test_probabilities_are_found_and_gone_without_their_function(
    data: DataSetMaker, end: str, name: str, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "ending.py"
    file.write_text(ENDS_IN.format(end=end))
    keys = {role: {"name": f"{file}:factory", "weights": "own" if role == "teacher" else ""}}
    made = distillation(data, spoiled(data, tmp_path, "none"))
    recipe = Recipe.load(SMALL, {k: v for k, v in made.items() if not k.startswith(role)} | keys)
    (error,) = examine(Examined(recipe, device="cpu", short=True)).of("error")
    assert f"The network ends in a {name}" in error.message
    file.write_text(ENDS_IN.format(end=""))
    assert Examined(recipe, device="cpu").experiment


@pytest.mark.parametrize("data", [clothes, marks])
def test_names_in_the_weights_that_are_wrong_are_replaced(
    data: DataSetMaker, tmp_path: Path
) -> None:
    classes = data().classes
    wrong = {"classes": json.dumps(classes[::-1])}
    save_file(load_file(spoiled(data, tmp_path, "none")), tmp_path / "wrong.safetensors", wrong)
    recipe = Recipe.load(SMALL, distillation(data, tmp_path / "wrong.safetensors"))
    (finding,) = findings(recipe, "teacher_accuracy")
    assert finding.fix == {"teacher.classes": list(classes)}
    assert not findings(Recipe.load(recipe, finding.fix), "teacher_accuracy")


def test_a_detector_with_its_classes_in_another_order_is_noticed() -> None:
    task, answers = tasks.find("detection"), detected(0.1, 0)
    measured = detector_accuracy.classes_of_objects(answers, task)
    assert detector_accuracy.better_order(measured, drawn_shapes.CLASSES) is None
    order = [3, 0, 4, 1, 5, 2]
    mixed = answers | {"classes": torch.tensor(order).argsort()[answers["classes"]]}
    measured = detector_accuracy.classes_of_objects(mixed, task)
    assert measured.hits().mean() < 0.3 < 0.8 < measured.hits(order).mean()
    assert detector_accuracy.better_order(measured, drawn_shapes.CLASSES) == (
        "that fits these objects best",
        order,
    )
