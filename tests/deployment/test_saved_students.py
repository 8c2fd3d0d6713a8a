"""A student's file loads where there is no Understudy, and gives the metrics that were reported.

One process without Understudy, in another folder, executes the printed lines of all students here,
and the comment in them that names the classes of a picture.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.support.processes import Fresh
from understudy import Run, load, tasks
from understudy.config.recipe import Recipe
from understudy.data.sources import drawn_shapes
from understudy.deployment.saved_student import open_student
from understudy.experiment.evaluate import evaluate
from understudy.experiment.train import train
from understudy.models.library_modules import own_classes

CNN = f"{Path(__file__).parents[1] / 'support' / 'plain_cnn.py'}:factory"
"""A module of the user's own."""
SIDE = 32
TRAINED = {"epochs": 1, "batch": 8, "lr": 0.02, "schedule": "constant"}
SQUASHED = {"augment": "squash_flip", "size": SIDE}
TINY_VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
LETKD = {"letkd": {"words": 8, "subclasses": 2, "iterations": 2}}
SMALL = {"min_size": 136, "max_size": 136, "channels": 64}
SHUFFLENET = {"backbone": "shufflenet_v2_x0_5"}

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "timm": {"student": {"name": "timm:test_efficientnet"}, "methods": {"kd": {}}},
    "transformer": {"student": {"name": "timm:vit_tiny_patch16_224", "options": TINY_VIT}},
    "timm, folded": {
        "student": {"name": "timm:test_convnext"},
        "methods": {"lshfm": {"hashes": 32}},
    },
    "torchvision, squashed": {
        "student": {"name": "torchvision:shufflenet_v2_x0_5"},
        "methods": {"lshfm": {"hashes": 32}},
        "data": SQUASHED,
    },
    "timm, resized twice": {"student": {"name": "timm:test_resnet", "size": 48}},
    "own module, folded": {"student": {"name": CNN}, "methods": {"lshfm": {"hashes": 32}}},
    "letkd": {"student": {"name": "timm:test_resnet"}, "methods": LETKD},
    "simkd": {"student": {"name": CNN}, "methods": {"simkd": {}}},
    "papers": {"student": {"name": "resnet8"}},
    "max-pooled": {"student": {"name": "timm:test_resnet", "pool": "gmp"}},
}
"""Students of a folder of photographs of many sizes."""
OTHERS: dict[str, dict[str, Any]] = {
    "several classes": {
        "task": "multilabel",
        "student": {"name": "timm:test_efficientnet"},
        "data": {"source": "drawn_shapes", "root": "12", "size": SIDE, "augment": "flip"},
    },
    **{
        family: {
            "task": "detection",
            "student": {"name": family, "options": SHUFFLENET | options},
            "data": {"source": "drawn_shapes", "root": "12", "augment": "none"},
        }
        for family, options in {
            "fasterrcnn": SMALL | {"anchors": [8, 16, 24, 32, 48]},
            "fcos": SMALL,
            "ssdlite": {"size": 64, "extra": [16, 16]},
        }.items()
    },
}
STUDENTS = CLASSIFIERS | OTHERS
ONCE_MORE = {"letkd", "simkd", "papers", "ssdlite"}
"""Students that are exported by Understudy once, before they load without it."""
NOT_TIMMS = {"timm, resized twice", "several classes"}
"""Students whose pictures timm's transform does not prepare to the last digit."""

PROGRAM = """
import json, sys
sys.modules["understudy"] = None  # importing it fails
from pathlib import Path
import torch
from PIL import Image

torch.set_num_threads(1)
for name, (code, folder, is_detector) in json.load(open("students.json")).items():
    defined = {}
    exec(code, defined)
    network, transform = defined["network"], defined["transform"]
    naming = code.splitlines()[-1].removeprefix("# ")
    outputs, named = [], []
    for file in sorted(Path(folder).rglob("*.png")):
        image = transform(Image.open(file).convert("RGB"))
        with torch.no_grad():
            output = network([image]) if is_detector else network(image[None])
        # A detector that is a script returns its losses, too.
        output = output[1] if isinstance(output, tuple) else output
        outputs.append(output[0])
        named.append(eval(naming, defined | {"image": Image.open(file).convert("RGB")}))
    torch.save({"outputs": outputs, "named": named}, f"{name}.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three classes in many sizes, drawn shapes, and a run of each student."""
    root = tmp_path_factory.mktemp("students")
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 6)):
        for label in range(3):
            for number in range(count):
                height, width = 40 + 7 * number, 52 - 5 * number + label
                pixels = draw.integers(40, size=(height, width, 3)) + [90, 60, 30] + 20 * label
                path = root / "photos" / split / f"class{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "shapes").mkdir()
    for number, pixels in enumerate(drawn_shapes.load("12", "test").pixels):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(root / "shapes" / f"{number}.png")
    photos = {"source": "folder", "root": str(root / "photos"), "augment": "resized_crop"}
    teacher = train(
        Recipe.from_dict(
            {
                "data": {**photos, "size": SIDE},
                "student": {"name": CNN, "size": SIDE},
                "training": TRAINED,
            }
        ),
        out=root / "teacher",
    )
    for name, keys in STUDENTS.items():
        recipe = {
            "trust": True,
            "training": TRAINED,
            **keys,
            "data": {**photos, "size": SIDE, **keys.get("data", {})},
        }
        if keys.get("task") != "detection":
            recipe["student"] = {"size": SIDE, **keys["student"]}
        if "methods" in keys:
            recipe["teacher"] = {"weights": str(teacher.path)}
        if keys.get("task"):
            recipe["data"] = keys["data"]
        train(Recipe.from_dict(recipe), out=root / name, threads=1)
    return root


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> Mapping[str, dict[str, list[Any]]]:
    """What each student gives for every test image in a process without Understudy.

    Outputs, and the names of the classes.
    """
    programs, other = {}, folder / "elsewhere"
    other.mkdir()
    for name in STUDENTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            lines = Run.open(name).loading_lines  # by a relative path, as a user names it
        assert bool(lines.before) == (name in ONCE_MORE), name
        exec(lines.before, {})
        pictures = folder / ("shapes" if name in OTHERS else "photos/test")
        is_detector = STUDENTS[name].get("task") == "detection"
        compile(str(lines), name, "exec")  # as it is printed, sentences included
        programs[name] = (lines.code, str(pictures), is_detector)
    (other / "students.json").write_text(json.dumps(programs))
    Fresh("-W", "ignore", "-c", PROGRAM, folder=other).finish()
    return {name: torch.load(other / f"{name}.pt") for name in STUDENTS}


@pytest.fixture(scope="module")
def outputs(elsewhere: Mapping[str, dict[str, list[Any]]]) -> Mapping[str, list[Any]]:
    """Outputs of each student for every test image in that process."""
    return {name: content["outputs"] for name, content in elsewhere.items()}


def pictures(folder: Path, name: str) -> list[Image.Image]:
    files = (folder / ("shapes" if name in OTHERS else "photos/test")).rglob("*.png")
    return [Image.open(file).convert("RGB") for file in sorted(files)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_elsewhere_has_the_reported_accuracy(
    outputs: Mapping[str, list[Tensor]], folder: Path, name: str
) -> None:
    run = Run.open(folder / name)
    logits = torch.stack(outputs[name])
    labels = torch.arange(3).repeat_interleave(6)
    correct = "".join(str(int(x)) for x in logits.argmax(1) == labels)
    assert correct == run.outcomes["correct"]
    assert run.evaluation["metrics"]["top1"] == pytest.approx(100 * correct.count("1") / 18)
    assert run.config.metrics["top1"] == run.evaluation["metrics"]["top1"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_named_class_is_the_folder_where_the_run_was_right(
    elsewhere: Mapping[str, dict[str, list[str]]], folder: Path, name: str
) -> None:
    files = sorted((folder / "photos/test").rglob("*.png"))
    right = [file.parent.name == x for file, x in zip(files, elsewhere[name]["named"], strict=True)]
    assert "".join(str(int(x)) for x in right) == Run.open(folder / name).outcomes["correct"]


@pytest.mark.parametrize("name", OTHERS)
def test_named_classes_are_those_of_the_predictor(
    elsewhere: Mapping[str, dict[str, list[list[str]]]], folder: Path, name: str
) -> None:
    ours = load(folder / name).predict(sorted((folder / "shapes").glob("*.png")), threshold=0.0)
    labels = [list(prediction.labels) for prediction in ours]
    named = elsewhere[name]["named"]
    assert any(named)
    if name == "several classes":  # all at a threshold of 0, where the lines name those from 0.5
        several = [
            [x for x, p in zip(o.labels, o.probabilities, strict=True) if p >= 0.5] for o in ours
        ]
        assert list(map(sorted, named)) == list(map(sorted, several))
    else:
        assert list(map(sorted, named)) == list(map(sorted, labels))


@pytest.mark.parametrize("name", OTHERS)
def test_outputs_elsewhere_have_the_reported_metrics(
    outputs: Mapping[str, list[Any]], folder: Path, name: str
) -> None:
    run = Run.open(folder / name)
    task, truth = tasks.find(run.recipe.task), drawn_shapes.load("12", "test")
    if name == "several classes":
        logits = torch.stack(outputs[name])
        kept = {"logits": logits, "labels": truth.labels, "index": torch.arange(len(logits))}
        measured = task.measure(kept).metrics
    else:
        # Scores that almost agree are ordered by the last bit, which the memory format decides.
        as_measured = "memory_format=torch.channels_last" in run.loading_lines.code
        assert as_measured == run.environment["channels_last"]
        ours = open_student(folder / name)
        with torch.no_grad():
            expected = [ours.module([ours.preprocess(x)])[0] for x in pictures(folder, name)]
        torch.testing.assert_close(outputs[name], expected, atol=1e-3, rtol=1e-5)
        measured = evaluate(run).metrics
    assert measured == pytest.approx(run.evaluation["metrics"], abs=1e-9)


@pytest.mark.parametrize("name", STUDENTS)
def test_an_opened_student_is_prepared_alike_and_has_no_class_of_ours(
    outputs: Mapping[str, list[Any]], folder: Path, name: str
) -> None:
    student = open_student(folder / name, trust=True)
    assert own_classes(student.module) == []
    if student.config.task == "detection":
        return
    with torch.no_grad():
        logits = [student.module(student.preprocess(x)[None])[0] for x in pictures(folder, name)]
    torch.testing.assert_close(logits, outputs[name], atol=1e-5, rtol=1e-5)
