"""What is chosen for images and networks where a recipe leaves it open, and that it stays so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.small_images import CLOTHES
from tests.support.small_runs import CNN, TINY
from understudy import tasks
from understudy.comparison.compare import compare
from understudy.comparison.place import REASONS
from understudy.config.recipe import Recipe
from understudy.config.tables import PAPERS
from understudy.data.source import MemorySource
from understudy.errors import RecipeError
from understudy.experiment import build, defaults
from understudy.experiment.images import Images, read_images
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.models.network import Network

RESULTS = Path(__file__).parents[2] / "results"
SMALL = {"source": "folder", "root": CLOTHES}
OPEN: dict[str, Any] = {
    "data": SMALL,
    "student": {"name": CNN, "options": {"width": 4}},
    "training": {"batch": 100, "epochs": 1},
}
"""A recipe of small images that names little more than its networks."""


def built(keys: dict[str, Any]) -> build.Experiment:
    return build.experiment(Recipe.load(OPEN, keys))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes, without splits, of pictures of several sizes."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (90 + number, 80), (10 * number, 9, 99)).save(folder / f"{number}.png")
    return root


def test_small_images_and_a_plain_network() -> None:
    experiment = built({})
    training, data = experiment.recipe.training, experiment.recipe.data
    assert not defaults.unresolved(experiment.recipe)
    assert (training.optimizer, training.lr, training.weight_decay) == ("sgd", 0.078, 5e-4)
    assert (training.schedule, training.warmup_epochs, training.decay_norms) == (
        "cosine",
        0.05,
        True,
    )
    assert (data.augment, data.validation) == ("crop_flip", 0.0)
    assert data.transforms == ()  # of one epoch
    assert set(experiment.reasons) == set(defaults.OPEN) - {"training.epochs", "student.size"}


def test_photographs_without_splits_are_split(photographs: Path) -> None:
    data = {"data": {"source": "folder", "root": str(photographs)}}
    experiment = built({**data, "training.batch": 4})
    assert experiment.recipe.data.augment == "resized_crop"
    assert experiment.recipe.data.validation == 0.2
    assert len(experiment.images.test) == 4
    assert experiment.images.measured == "validation"


@pytest.mark.parametrize(
    ("images", "keys", "share"),
    [
        ({"validation": True, "test": True}, {}, 0.0),
        ({"validation": False, "test": True}, {}, 0.1),
        ({"validation": False, "test": True}, {"training.patience": 5}, 0.1),
        ({"validation": False, "test": True}, {"training.best": "test"}, 0.0),
        ({"validation": False, "test": False}, {}, 0.2),
    ],
)
def test_images_are_held_out_where_there_is_no_split(
    images: dict[str, bool], keys: dict[str, Any], share: float
) -> None:
    chosen = defaults.held_out(Recipe.load({}, keys), 10_000, 10, **images)
    assert chosen.value == share
    assert chosen.reason


@pytest.mark.parametrize(("images", "classes"), [(9_999, 2), (10_000, 1001)])
def test_of_few_images_none_is_held_out_unless_patience_asks(images: int, classes: int) -> None:
    patient = Recipe.load({}, {"training.patience": 3})
    for recipe, share in ((Recipe(), 0.0), (patient, 0.1)):
        chosen = defaults.held_out(recipe, images, classes, validation=False, test=True)
        assert chosen.value == share


@pytest.mark.parametrize(
    ("images", "keys", "transforms"),
    [
        (9_999, {}, ("TrivialAugment",)),
        (10_000, {}, ()),
        (100, {"data.augment": "flip"}, ("TrivialAugment",)),
        (100, {"data.augment": "none"}, ()),
        (100, {"training.epochs": 59}, ()),
        (100, {"training.epochs": 60}, ("TrivialAugment",)),
        (100, {"data.transforms": []}, ()),
        (100, {"data.transforms": ["RandAugment"]}, ("RandAugment",)),
        (100, {"task": "detection"}, ()),
        (100, {"student": {"name": CNN, "weights": "pretrained"}}, ()),
    ],
)
def test_few_images_get_stronger_views_unless_the_student_starts_from_weights(
    images: int, keys: dict[str, Any], transforms: tuple[str, ...]
) -> None:
    source = MemorySource(torch.zeros(images, 3, 2, 2, dtype=torch.uint8), [0] * images, ["a"])
    recipe, reasons = defaults.for_images(Recipe.load({}, keys), Images(source, source))
    assert recipe.data.transforms == transforms
    assert ("data.transforms" in reasons) == ("data.transforms" not in keys)


@pytest.mark.parametrize(
    ("keys", "optimizer", "lr"),
    [
        ({"student": "timm:test_vit"}, "adamw", 6.3e-4),
        ({"student": "timm:test_convnext"}, "adamw", 6.3e-4),
        ({"student": "timm:test_efficientnet"}, "adamw", 6.3e-4),
        ({"student": "timm:test_resnet"}, "sgd", 0.078),
        ({"training.nesterov": True, "student": "timm:test_convnext"}, "sgd", 0.078),
        ({"training.lr": 0.1, "student": "timm:test_convnext"}, "sgd", 0.1),
        ({"training.optimizer": "adamw"}, "adamw", 6.3e-4),
        ({"training.batch": 8192}, "sgd", 0.4),
    ],
)
def test_optimizer_and_rate_follow_the_family(
    keys: dict[str, Any], optimizer: str, lr: float
) -> None:
    training = built({"data.size": 32, **keys}).recipe.training
    assert (training.optimizer, training.lr) == (optimizer, lr)
    assert training.decay_norms == (optimizer == "sgd")


@pytest.mark.parametrize(
    ("images", "batch", "trained", "epochs"),
    [
        (3000, 64, False, 240),
        (3000, 64, True, 60),
        (50_000, 64, False, 94),
        (1_281_167, 64, False, 32),
        (1000, 1000, False, 1000),
        (10, 64, True, 250),
    ],
)
def test_epochs_fall_with_the_images_but_their_steps_rise(
    images: int, batch: int, trained: bool, epochs: int
) -> None:
    assert defaults._epochs(images, batch, trained=trained).value == epochs


def test_milestones_ask_for_steps_and_steps_for_no_warm_up() -> None:
    training = built({"training.milestones": [1], "training.epochs": 2}).recipe.training
    assert (training.schedule, training.warmup_epochs) == ("step", 0.0)


def test_an_optimizer_that_nothing_is_known_of_needs_a_rate() -> None:
    with pytest.raises(RecipeError, match=r"training\.lr and --training\.weight_decay"):
        built({"training.optimizer": "lion"})
    stated = {"training.lr": 1e-4, "training.weight_decay": 1.0}
    assert not built({"training.optimizer": "lion", **stated}).recipe.training.decay_norms


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("test_resnet", 64, {}),
        ("vit_tiny_patch16_224", 64, {"depth": 1, "img_size": 64}),
        ("test_resnet", 160, {}),
    ],
)
def test_a_student_computes_at_the_side_that_is_asked_for(
    name: str, size: int, options: dict[str, Any]
) -> None:
    depth = {key: value for key, value in options.items() if key == "depth"}
    experiment = built({"student": {"name": f"timm:{name}", "options": depth}, "data.size": size})
    assert isinstance(experiment.distiller.student, Network)
    assert experiment.distiller.student.input.size == size
    assert experiment.recipe.student.options == options
    assert experiment.recipe.student.size == (None if size == 160 else size)


def test_a_student_that_cannot_keeps_its_own_and_says_so() -> None:
    experiment = built({"student": "timm:test_vit", "data.size": 33})
    assert experiment.recipe.student.size is None
    assert "cannot compute at data.size 33" in experiment.reasons["student.size"]


def test_a_run_tells_stores_and_keeps_what_was_chosen(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    run = train(OPEN, {"data.images": 100}, out=tmp_path / "run")
    assert not defaults.unresolved(run.recipe)
    assert set(run.environment["reasons"]) == set(defaults.OPEN) - {
        "training.epochs",
        "student.size",
    }
    lines = [record.getMessage() for record in log.records]
    assert any("training: optimizer sgd" in line for line in lines)
    # The rules may be others by now: what began with a rate goes on with it.
    stored = run.path / "recipe.yaml"
    stored.write_text(stored.read_text().replace("lr: 0.078", "lr: 0.05"))
    (run.path / "evaluation.json").unlink()
    again = train(OPEN, {"data.images": 100}, out=run.path, resume=True)
    assert again.recipe.training.lr == 0.05


def test_all_runs_of_a_comparison_have_the_same(
    teacher: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    keys = {**OPEN, "teacher": {"weights": str(teacher)}, "methods": {"kd": {}}, "trust": True}
    asked = Recipe.load(keys, {"data.images": 100})
    result = compare(asked, seeds=[0, 1], out=tmp_path / "c")
    runs = [Run(tmp_path / "c" / arm / f"seed{n}") for arm in ("control", "kd") for n in (0, 1)]
    assert len({json.dumps(run.recipe.to_dict()["training"]) for run in runs}) == 1
    assert not any(defaults.unresolved(run.recipe) for run in runs)
    assert "training.optimizer" in json.loads((tmp_path / "c" / REASONS).read_text())
    assert sum("Chosen, as nothing was set" in record.getMessage() for record in log.records) == 1
    assert compare(asked, seeds=[0, 1], out=tmp_path / "c").recipe_digest == result.recipe_digest


def test_images_read_for_an_open_recipe_serve_the_one_that_was_chosen() -> None:
    experiment = built({})
    task = tasks.find("classification")
    chosen = read_images(experiment.recipe, task)
    assert chosen.train.digest == experiment.images.train.digest
    assert torch.equal(chosen.test.labels, experiment.images.test.labels)


def test_a_stated_recipe_is_left_alone() -> None:
    recipe = Recipe.load(TINY, {"data.images": 100})
    experiment = build.experiment(recipe)
    assert experiment.recipe == recipe
    assert not experiment.reasons


@pytest.mark.parametrize(
    ("transforms", "words"),
    [((), "none"), ([], "none"), (["TrivialAugment"], "TrivialAugment")],
)
def test_chosen_transforms_are_said_by_name(transforms: Any, words: str) -> None:
    _, line = defaults.say({"data.transforms": "why"}, {"data.transforms": transforms})
    assert line == f"  data: transforms {words} (why)"


@pytest.mark.parametrize("key", ["data.transforms", "training.decay_norms", "training.schedule"])
def test_a_run_that_is_older_than_a_key_had_the_value_of_the_papers(
    tmp_path: Path, key: str
) -> None:
    papers = Recipe.read(PAPERS)
    group, name = key.split(".")
    content = papers.to_dict()
    del content[group][name]
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    assert Run(tmp_path).recipe.to_dict() == papers.to_dict()


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("seed*/recipe.yaml")), ids=str)
def test_a_kept_run_leaves_nothing_open_and_so_is_continued(file: Path) -> None:
    assert not defaults.unresolved(Run(file.parent).recipe)
