"""Every shipped recipe: it reads, says what it is of, is built, and takes two steps.

Images are noise of the right size, drawn in memory, or for detectors small ones with shapes, and
teachers have random weights. Recipes that differ in nothing but weights, temperatures, the depth of
a detector's backbone and the like are trained once.
"""

import json
import re
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import nn

from understudy import models, tasks
from understudy.batch import Batch
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.cli.listing import show
from understudy.config import recipe, tables
from understudy.config.recipe import Recipe
from understudy.data.sources import drawn_shapes
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import distiller, train_only
from understudy.features import Features
from understudy.models import Network, detection
from understudy.models.detection import Detector
from understudy.models.pooling import Pool

CLASSES, IMAGES, SCENES = 10, 4, 3
SIDE, LARGE = 64, ("folder", "voc", "coco")
"""Of images from such sources, which are larger in the experiments."""

PUBLISHED = [name for name in tables.shipped() if not name.startswith(("fashion/", "shapes/"))]

SHORT: dict[str, dict[str, Any]] = {
    "lshfm": {"hashes": 64},
    "letkd": {"words": 16, "iterations": 2, "dims": 4},
    "ft": {"paraphraser_epochs": 1},
}
"""What only makes measuring a teacher shorter."""

SMALL = {"min_size": drawn_shapes.SIDE, "max_size": drawn_shapes.SIDE, "backbone_weights": ""}
FEW = {f"rpn_{when}_nms_top_n_{mode}": 50 for when in ("pre", "post") for mode in ("train", "test")}
TINY = {
    "fasterrcnn": {**SMALL, **FEW, "box_batch_size_per_image": 16},
    "retinanet": SMALL,
    "fcos": SMALL,
}
"""Options of detectors that only make their steps shorter."""


@cache
def drawn(side: int, task: str = "classification") -> Batch:
    """Some images, each of a class of its own; of several labels, of this one and the next."""
    images = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    classes, each = torch.arange(IMAGES), torch.eye(CLASSES, dtype=torch.long)
    several = each[classes] + each[classes + 1]
    return Batch.of(images, several if task == "multilabel" else classes)


@cache
def scenes() -> Batch:
    """Some images with shapes and their boxes."""
    source = drawn_shapes.load(str(SCENES), "train")
    images, targets = zip(
        *((source.image(i) / 255, source.target(i)) for i in range(SCENES)), strict=True
    )
    found = [
        {"boxes": each["boxes"].as_subclass(torch.Tensor), "labels": each["labels"] + 1}
        for each in targets
    ]
    return Batch.of(images, found)


def shown(wanted: Recipe) -> Batch:
    """The images that a recipe is tried on."""
    return scenes() if wanted.task == "detection" else drawn(side_of(wanted), wanted.task)


def side_of(wanted: Recipe) -> int:
    return wanted.data.size or 32 if wanted.data.source not in LARGE else SIDE


@cache
def built(name: str, side: int, pool: Pool = "") -> Network:
    """A network for images of this size; of a transformer four blocks are enough."""
    options = {"img_size": side, "depth": 4} if re.match("timm:(vit|deit)_", name) else {}
    return models.find(name, num_classes=CLASSES, options=options, size=side, pool=pool)


def follow_all(network: nn.Module) -> None:
    """Let norms follow all images that they see alike, or what is untrained would grow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


@cache
def taught(name: str, side: int, pool: Pool = "") -> tuple[Network, Features]:
    """A teacher and its features of all images, which its norms have seen."""
    found = deepcopy(built(name, side, pool))
    follow_all(found)
    with torch.no_grad():
        found.train()(drawn(side).images)
        return found.eval(), found.features(drawn(side).images)


@cache
def detector(name: str, options: str) -> Detector:
    """A detector of small images and few proposals; its norms have seen some images.

    Args:
        name: Of the detector.
        options: In JSON.
    """
    given = {**json.loads(options), **TINY[name]}
    found = detection.find(name, num_classes=len(drawn_shapes.CLASSES), options=given)
    follow_all(found)
    with torch.no_grad():
        found.train().observe(scenes())
    return found


def small(network: recipe.Network) -> Detector:
    """The detector of a recipe, made small."""
    return deepcopy(detector(network.name, json.dumps(network.options)))


def wired_detectors(wanted: Recipe) -> Distiller:
    """Detectors and methods of a recipe."""
    teacher = small(wanted.teacher) if wanted.methods else None
    made = distiller(wanted, small(wanted.student), teacher, tasks.find(wanted.task))
    made.measure(lambda augmented: iter([scenes()]), num_images=SCENES)
    return made.train()


def wired(wanted: Recipe) -> Distiller:
    """Networks and methods of a recipe; the teacher's features are those of all images."""
    if wanted.task == "detection":
        return wired_detectors(wanted)
    side, task = side_of(wanted), tasks.find(wanted.task)
    student = deepcopy(built(wanted.student.name, side, wanted.student.pool))
    if not wanted.methods:
        return distiller(wanted, student, None, task)
    teacher, features = taught(wanted.teacher.name, side, wanted.teacher.pool)
    made = distiller(wanted, student, teacher, task)
    train_only(student, wanted.training.only)
    made.replay = lambda batch: features
    made.measure(lambda augmented: iter([shown(wanted)]), num_images=IMAGES)
    return made


def shortened(name: str) -> Recipe:
    """A recipe whose teacher is measured in a moment."""
    labels = {
        label: given.get("method", label) for label, given in Recipe.load(name).methods.items()
    }
    changes = {
        f"methods.{label}.{key}": value
        for label, kind in labels.items()
        for key, value in SHORT.get(kind, {}).items()
    }
    return Recipe.load(name, changes)


def distinct() -> list[str]:
    """The first of all recipes that differ in numbers only."""
    found: dict[str, str] = {}
    for name in tables.shipped():
        wanted = Recipe.load(name)
        if wanted.methods and not wanted.teacher.name:
            continue  # The demonstration, which a test of its own runs.
        told = {
            label: {k: v for k, v in given.items() if not isinstance(v, float | dict)}
            for label, given in wanted.methods.items()
        }
        pair = kind(wanted.student), kind(wanted.teacher) if told else ""
        same = *pair, side_of(wanted), wanted.task, told
        found.setdefault(repr((*same, wanted.task_weight > 0)), name)
    return list(found.values())


def kind(network: recipe.Network) -> str:
    """What distinguishes a network: not how deep it is in torchvision or under a detector."""
    backbone = network.options.get("backbone", "").rpartition(":")[2]
    shallow = re.sub(r"(?<=torchvision:resnet)\d+", "", network.name)
    return shallow + network.pool + re.sub(r"\d+.*", "", backbone)


@pytest.mark.parametrize("name", PUBLISHED)
def test_says_what_it_is_of(name: str) -> None:
    about = tables.about(name)
    assert all((about.paper, about.table, about.cost))
    assert re.search(r"\b20\d\d\b", about.paper)
    for figure in filter(None, (about.published, about.student, about.teacher)):
        assert re.fullmatch(r"[4-9]\d\.\d\d?( ± 0\.\d\d)?", figure)
    if Recipe.load(name).methods and not about.published:
        assert about.note, "nothing tells why there is no figure"


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_shown_is_the_recipe(name: str) -> None:
    page = show(name).code
    assert max(map(len, page.splitlines())) <= 100
    shown = tables.from_yaml(page)
    given = {"name": name} | {k: v for k, v in shown.items() if k != "about"}
    assert Recipe.from_dict(given) == Recipe.load(name)


def commands(name: str) -> list[list[str]]:
    """Words of every command that the page of a recipe shows."""
    page = show(name).code.replace("\\\n#", "")
    return [line.split() for line in re.findall(r"^# (understudy .*)$", page, re.MULTILINE)]


@pytest.mark.parametrize(
    "name", sorted({name.rpartition("/")[0]: name for name in PUBLISHED}.values())
)
def test_the_commands_that_are_shown_can_be_typed(name: str) -> None:
    lines = commands(name)
    assert lines
    for _, command, *words in lines:
        options, overrides = parse(COMMANDS[command], command, words)
        wanted = Recipe.load(options.recipe, overrides)
        assert bool(wanted.methods) == (command == "distill")
        assert wanted.teacher.weights or not wanted.methods


@pytest.mark.parametrize("name", [name for name in PUBLISHED if tables.about(name).first])
def test_a_second_stage_takes_the_student_of_the_first(name: str) -> None:
    lines = commands(name)
    first, second = (Recipe.load(words[2]) for words in lines)
    assert second.name == name
    assert first.methods
    assert first.student.name == second.student.name
    assert lines[-1][-2:] == ["--student.weights", "runs/first/last"]


def test_pretrained_teachers_exist() -> None:
    teachers = [Recipe.load(name).teacher for name in PUBLISHED]
    asked = {found.name for found in teachers if found.weights == "pretrained"}
    assert asked
    assert all(timm.is_model_pretrained(name.removeprefix("timm:")) for name in asked)


@pytest.mark.parametrize("name", distinct())
def test_takes_two_steps(name: str) -> None:
    wanted = shortened(name)
    made = wired(wanted)
    optimizer = torch.optim.SGD(made.trainable.parameters(), lr=1e-3)
    before = [x.detach().clone() for x in made.student.parameters()]
    for _ in range(2):
        losses = made(shown(wanted))
        # The last epoch, when every weight has risen.
        made.total(losses, wanted.training.epochs).backward()
        optimizer.step()
        optimizer.zero_grad()
        # A detector has several losses of its own, such as `task/classifier`.
        named = {label.partition("/")[0] for label in losses}
        assert named == {*wanted.methods} | ({"task"} if wanted.task != "none" else set())
        assert all(loss.isfinite() for loss in losses.values())
    moved = [not torch.equal(x, y) for x, y in zip(before, made.student.parameters(), strict=True)]
    assert any(moved)
