"""Runs on images in shards: killed in the middle of one, and on two processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Fresh, command_line, ranks, until
from tests.support.small_runs import CNN, outcome
from tests.support.small_shards import shards
from understudy.config.recipe import Recipe
from understudy.experiment.build import experiment
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

IMAGES = 40

SEEN = """
import json, os, sys
from understudy.config.recipe import Recipe
from understudy.experiment.build import experiment
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
loader = experiment(Recipe.load(sys.argv[1]), rank=rank, world=world).train
epochs = [[b for step in loader.epoch(e) for b in step] for e in (0, 1)]
print(json.dumps([[b.index.tolist() for b in epoch] for epoch in epochs]))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short training on shards of five images, of which a batch holds some of several."""
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    content: dict[str, Any] = {
        "name": "sharded",
        "trust": True,
        "data": {
            "source": "webdataset",
            "root": str(shards(tmp_path / "shards", {"train": IMAGES, "test": 6})),
            "shuffle_buffer": 8,
            "size": 32,
            "augment": "resized_crop",
            "workers": 1,
        },
        "student": {"name": CNN, "options": {"width": 4}},
        "training": {"epochs": 2, "batch": 6, "lr": 0.05, "checkpoint_minutes": 0.0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.from_dict(content).to_yaml())
    return path


def test_kill_9_in_the_middle_of_a_shard_and_resume_is_exact(recipe: Path, tmp_path: Path) -> None:
    whole = train(Recipe.load(str(recipe)), out=tmp_path / "whole", device="cpu")
    command = ["train", recipe, "--out", tmp_path / "killed", "--device", "cpu"]
    process = command_line(*command)
    until((tmp_path / "killed" / "last" / "previous.ckpt").exists, process)
    process.kill()
    assert not Run(tmp_path / "killed").finished
    command_line(*command, "--resume").finish()
    assert outcome(Run(tmp_path / "killed")) == outcome(whole)


def seen(processes: list[Fresh]) -> list[list[list[list[int]]]]:
    return [json.loads(process.finish()) for process in processes]


def test_two_ranks_see_every_image_once_an_epoch(recipe: Path) -> None:
    loader = experiment(Recipe.load(str(recipe))).train
    alone = [[b.index.tolist() for step in loader.epoch(e) for b in step] for e in (0, 1)]
    together = seen(ranks(2, "-c", SEEN, str(recipe)))
    for epoch in (0, 1):
        every = [i for rank in together for batch in rank[epoch] for i in batch]
        assert sorted(every) == list(range(IMAGES))
        for one, *parts in zip(alone[epoch], *(rank[epoch] for rank in together), strict=True):
            assert sorted(i for part in parts for i in part) == sorted(one)
