"""2,000 recipes that nobody should write: each is a run, or is refused in one sentence.

All are read and checked. Of those that pass, every second one is built and takes a step, which
costs ten times as much.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from PIL import Image

from tests.fuzz.nonsense import Wish, as_words, as_yaml, changed, wishes
from understudy.cli.commands import COMMANDS
from understudy.cli.flags import parse
from understudy.config.recipe import Recipe
from understudy.distillation.wire import check_methods
from understudy.errors import UnderstudyError
from understudy.experiment.setup import set_up
from understudy.experiment.train import train
from understudy.training.trainer import Trainer

RECIPES = [("classification", 230)] * 7 + [("multilabel", 180), ("none", 150), ("detection", 60)]
"""Task and number of the recipes of each part; a step of a detector takes ten times as long."""
CNN = f"{Path(__file__).parents[1] / 'support' / 'plain_cnn.py'}:factory"
SHAPES = {"source": "drawn_shapes", "root": "3", "augment": "flip"}
DETECTOR = {
    "name": "retinanet",
    "options": {"backbone": "timm:test_resnet", "channels": 64, "min_size": 64, "max_size": 64},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cache
def base(task: str, root: Path) -> dict[str, Any]:
    """A recipe of a few images and two networks of a few weights, in a folder of its own."""
    content: dict[str, Any] = {
        "name": "fuzz",
        "task": task,
        "trust": True,
        "data": SHAPES if task != "classification" else _folder_of_images(root / "images"),
        "student": DETECTOR if task == "detection" else {"name": CNN, "options": {"width": 2}},
        "training": {"epochs": 1, "batch": 8, "schedule": "cosine"},
    }
    if task == "none":
        return base("multilabel", root) | {"task": task, "methods": {"kd": {}}}
    teacher = train(content, out=root / task, device="cpu").path
    return content | {"teacher": content["student"] | {"weights": str(teacher)}}


def _folder_of_images(images: Path) -> dict[str, Any]:
    for number in range(16):
        folder = images / ("train" if number < 8 else "test") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 15, 99, 250 - number)).save(folder / f"{number}.png")
    return {"source": "folder", "root": str(images), "augment": "flip"}


def read(wish: Wish, base: dict[str, Any], folder: Path) -> Recipe:
    """The recipe that is wished for, in the form in which it is written."""
    content = changed(base, wish.changes)
    if wish.form == "dictionary":
        return Recipe.from_dict(content)
    if wish.form == "YAML":
        path = folder / "mine.yaml"
        path.write_text(wish.text or as_yaml(content), encoding="utf-8", errors="surrogatepass")
        return Recipe.load(path)
    words = [word.replace("\0", "\\0") for word in as_words(wish.changes)]
    _, overrides = parse(COMMANDS["distill"], "distill", words)
    return Recipe.load(base, overrides)


def outcome(wish: Wish, base: dict[str, Any], folder: Path, *, build: bool) -> str:
    """How far a wish comes: `refused` before anything is built, `unbuilt`, or `run`.

    Without `build` it is `allowed` where something would be built.
    """
    reached = "refused"
    try:
        recipe = read(wish, base, folder)
        check_methods(recipe)
        if not build:
            return "allowed"
        reached = "unbuilt"
        setup = set_up(recipe, "cpu", folder=folder)
        setup.experiment.prepare()
        trainer = Trainer(
            setup.experiment.distiller,
            setup.experiment.train,
            setup.experiment.recipe.training,
            settings=setup.settings,
            seed=recipe.seed,
            accelerator=setup.accelerator,
        )
        next(trainer.steps())
        trainer.state_dict()
        recipe.to_yaml()
    except SystemExit as asked:  # a value `--help` is the flag of that name
        if asked.code:
            raise
        return "refused"
    except UnderstudyError as error:
        sentence = str(error)
        assert sentence.strip()
        assert "\n" not in sentence, sentence
        assert len(sentence) < 3000, sentence
        return reached
    return "run"


@pytest.mark.parametrize("part", range(len(RECIPES)))
def test_a_recipe_runs_or_is_refused_in_a_sentence(
    part: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes: Counter[str] = Counter()
    task, count = RECIPES[part]
    content = base(task, folder)

    @seed(part)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(wishes())
    def check(wish: Wish) -> None:
        torch.default_generator.manual_seed(0)
        # By the wish alone, which hypothesis tries again when it looks for a smaller one.
        half = crc32(repr(wish).encode(errors="surrogatepass")) % 2 == 0
        outcomes[outcome(wish, content, tmp_path, build=half)] += 1

    check()
    # Neither is everything refused, nor everything let through.
    assert outcomes["refused"] > count // 20, outcomes
    assert outcomes["run"] > count // 40, outcomes
    assert Path.cwd() == tmp_path
