"""Every shipped recipe: it reads, says what it is of, and is wired; one of each kind is trained.

Images are noise of the right size, drawn in memory, or for detectors small ones with shapes, and
teachers have random weights. So many recipes are wired that every method is among them with every
pair of networks, as is every set of methods; what differs in nothing but weights, temperatures, the
depth of a backbone and the like counts once. So many take two steps that every method, every
student and every teacher is among them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.support.shipped_recipes import by_file
from understudy import models, tasks
from understudy.batch import Batch
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.cli.listing import show
from understudy.config import recipe, tables
from understudy.config.recipe import Recipe
from understudy.config.yaml_text import from_yaml
from understudy.data.sources import drawn_shapes
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import distiller, train_only
from understudy.errors import UnderstudyError
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

few = lru_cache(maxsize=3)
"""Keeps the last networks: tests of one pair of networks follow each other, and memory is short."""


@pytest.fixture(scope="module", autouse=True)
def _forget(quick_weights: None) -> Iterator[None]:
    yield
    for each in (built, frozen, taught, detector, frozen_detector):
        each.cache_clear()


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


@few
def built(name: str, side: int, pool: Pool = "") -> Network:
    """A network for images of this size; of a transformer four blocks are enough."""
    options = {"img_size": side, "depth": 4} if re.match("timm:(vit|deit)_", name) else {}
    return models.find(name, num_classes=CLASSES, options=options, size=side, pool=pool)


def follow_all(network: nn.Module) -> None:
    """Let norms follow all images that they see alike, or what is untrained would grow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


@few
def frozen(name: str, side: int, pool: Pool = "") -> Network:
    """A network that is nobody's student."""
    return sharing(built(name, side, pool))


def sharing(network: nn.Module) -> Any:
    """A copy with the same weights in the same memory, and statistics of its own."""
    weights = {id(x): nn.Parameter(x.detach(), x.requires_grad) for x in network.parameters()}
    return deepcopy(network, weights)


@few
def taught(name: str, side: int, pool: Pool = "") -> Features:
    """A teacher's features of all images, which its norms have seen."""
    teacher = frozen(name, side, pool)
    follow_all(teacher)
    with torch.no_grad():
        teacher.train()(drawn(side).images)
        return teacher.eval().features(drawn(side).images)


@few
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


@few
def frozen_detector(name: str, options: str) -> Detector:
    """A detector that is nobody's student."""
    return sharing(detector(name, options))


def wired(wanted: Recipe, *, whole: bool) -> Distiller:
    """Networks and methods of a recipe; nothing is measured yet.

    Args:
        whole: The student has weights of its own, and can be trained.
    """
    find, find_frozen = built, frozen
    if wanted.task == "detection":
        find, find_frozen = detector, frozen_detector
    ours, theirs = key(wanted, wanted.student), key(wanted, wanted.teacher)
    student = deepcopy(find(*ours)) if whole or ours == theirs else sharing(find(*ours))
    teachers = {"": find_frozen(*theirs)} if wanted.methods else {}
    return distiller(wanted, student, teachers, tasks.find(wanted.task))


def key(wanted: Recipe, network: recipe.Network) -> tuple[Any, ...]:
    """What a network of a recipe is built from."""
    if wanted.task == "detection":
        return network.name, json.dumps(network.options)
    return network.name, side_of(wanted), network.pool


def measured(wanted: Recipe) -> Distiller:
    """Networks and methods of a recipe, ready for steps."""
    made = wired(wanted, whole=True)
    if wanted.task == "detection":
        made.measure(lambda augmented: iter([scenes()]), num_images=SCENES)
        return made.train()
    if wanted.methods:
        train_only(made.student, wanted.training.only)
        features = taught(*key(wanted, wanted.teacher))
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


@cache
def tried() -> dict[str, Recipe]:
    """All recipes but the demonstration's, which a test of its own runs; shallow networks first."""
    loaded = {name: Recipe.load(name) for name in tables.shipped()}
    complete = {k: v for k, v in loaded.items() if v.teacher.name or not v.methods}
    return dict(sorted(complete.items(), key=lambda item: depth(item[1])))


def depth(wanted: Recipe) -> int:
    """How deep both networks are together, where `kind` makes no difference."""
    return sum(
        int(re.sub(r"\D*(\d*).*", r"0\1", name))
        for network in (wanted.student, wanted.teacher)
        for name in (network.name, str(network.options.get("backbone", "")))
        if not name.startswith("timm:")
    )


def kind(network: recipe.Network) -> str:
    """What distinguishes a network: not how deep it is, in the papers, torchvision or a detector.

    Stages of a family have the same names and widths at every depth (`test_every_model`), but for
    the papers' resnet50, whose blocks are others.
    """
    backbone = network.options.get("backbone", "").rpartition(":")[2]
    shallow = re.sub(r"(?<=torchvision:resnet)\d+", "", network.name)
    shallow = re.sub(r"^(resnet(?!50)|wrn_|vgg)\d+", r"\1", shallow)
    return shallow + network.pool + re.sub(r"\d+.*", "", backbone)


def pair(wanted: Recipe) -> str:
    """What distinguishes the networks of a recipe, and what they see and learn."""
    teacher = kind(wanted.teacher) if wanted.methods else ""
    return repr((kind(wanted.student), teacher, side_of(wanted), wanted.task))


def choices(wanted: Recipe) -> list[str]:
    """What distinguishes each method of a recipe: no weight, no other fraction and no count."""
    return [
        repr((given.get("method", label), {k: _kind(v) for k, v in given.items()}))
        for label, given in wanted.methods.items()
    ]


def _kind(value: object) -> object:
    """None, one and several differ, as do words; fractions do not."""
    if isinstance(value, float | dict):
        return type(value)
    return min(value, 2) if isinstance(value, int) else value


def covering(parts: Mapping[str, set[object]]) -> list[str]:
    """About as few recipes as together have all parts, those of the same networks in a row."""
    missing = {name: set(each) for name, each in parts.items()}
    result = []
    for new in range(max(map(len, missing.values())), 0, -1):
        for name, each in missing.items():
            if len(each) >= new:
                result.append(name)
                covered = set(each)
                for others in missing.values():
                    others -= covered
    return sorted(result, key=lambda name: [str(x) for x in networks(tried()[name])])


def networks(wanted: Recipe) -> list[tuple[Any, ...]]:
    """What both networks of a recipe are built from."""
    return [key(wanted, wanted.teacher), key(wanted, wanted.student)]


@cache
def of_each_pair() -> dict[str, list[str]]:
    """Pair of networks → the recipes of it that are wired."""
    parts: dict[str, set[object]] = {}
    for name, wanted in tried().items():
        parts[name] = {(pair(wanted), each) for each in choices(wanted)}
        parts[name] |= {(pair(wanted), wanted.task_weight > 0), (*choices(wanted),)}
    result: dict[str, list[str]] = {}
    for name in covering(parts):
        result.setdefault(pair(tried()[name]), []).append(name)
    return result


def chosen() -> list[str]:
    """Recipes of every method, every student and every teacher; about as few."""
    parts: dict[str, set[object]] = {}
    for name, wanted in tried().items():
        seen = side_of(wanted), wanted.task
        parts[name] = {*choices(wanted), ("student", kind(wanted.student), *seen)}
        if wanted.methods:
            parts[name].add(("teacher", kind(wanted.teacher), *seen))
    return covering(parts)


FILES = {file: names for file, names in by_file().items() if names[0] in PUBLISHED}


@pytest.mark.parametrize("file", FILES)
def test_rows_say_what_they_are_of(file: str) -> None:
    for name in FILES[file]:
        about = tables.about(name)
        assert all((about.paper, about.table, about.cost)), name
        assert re.search(r"\b20\d\d\b", about.paper), name
        for figure in filter(None, (about.published, about.student, about.teacher)):
            assert re.fullmatch(r"[4-9]\d\.\d\d?( ± 0\.\d\d)?", figure), name
        if Recipe.load(name).methods and not about.published:
            assert about.note, f"nothing tells why there is no figure of {name}"


@pytest.mark.parametrize("file", FILES)
def test_what_is_shown_is_the_recipe(file: str) -> None:
    for name in FILES[file]:
        page = show(name).code
        assert max(map(len, page.splitlines())) <= 100, name
        shown = from_yaml(page)
        given = {"name": name} | {k: v for k, v in shown.items() if k != "about"}
        assert Recipe.from_dict(given) == Recipe.load(name)


def commands(name: str) -> list[list[str]]:
    """Words of every command that the page of a recipe shows."""
    page = show(name).code.replace("\\\n#", "")
    return [line.split() for line in re.findall(r"^# (understudy .*)$", page, re.MULTILINE)]


@pytest.mark.parametrize("name", [names[-1] for names in FILES.values()])
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


@pytest.mark.parametrize("networks", of_each_pair())
def test_methods_and_networks_are_wired(networks: str) -> None:
    for name in of_each_pair()[networks]:
        wanted = shortened(name)
        try:
            made = wired(wanted, whole=False)
        except UnderstudyError as error:
            pytest.fail(f"{name}: {error}")
        assert made.trainable.methods.keys() == wanted.methods.keys(), name


@pytest.mark.parametrize("name", chosen())
def test_takes_two_steps(name: str) -> None:
    wanted = shortened(name)
    made = measured(wanted)
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
