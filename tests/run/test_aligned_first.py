"""LSHFM in two stages: first the embedding alone is aligned, then everything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from understudy import models
from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train

SMALL: dict[str, Any] = {
    "data": {"images": 64, "size": 16},
    "student": {"name": "resnet8", "size": 16, "options": {"widths": [4, 4, 6, 8]}},
    "training": {"epochs": 2, "batch": 32, "lr": 0.1, "schedule": "constant"},
}
EMBEDDING = "fc.embedding.weight"


def small(**changes: Any) -> Recipe:
    return Recipe.load(SMALL, {key.replace("__", "."): x for key, x in changes.items()})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = {"widths": [4, 4, 6, 10]}
    out = tmp_path_factory.mktemp("runs") / "teacher"
    return train(small(student__options=wide), out=out).path


@pytest.fixture(scope="module")
def stages(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("stages")
    distil = {"methods": {"lshfm": {"hashes": 64}}, "teacher__weights": str(teacher)}
    alone = {"training__only": ["*.embedding.*"], "task_weight": 0.0}
    first = train(small(**distil, **alone), out=folder / "first")
    start = {"student__weights": str(first.path / "last"), "training__lr": 0.0}
    return first, train(small(**distil, **start), out=folder / "second")


def trained(run: Run) -> dict[str, torch.Tensor]:
    """The student with its embedding apart."""
    state = torch.load(run.path / "last" / "state.ckpt", weights_only=True)["trainable"]
    mark = "student.module."
    return {k.removeprefix(mark): x for k, x in state.items() if k.startswith(mark)}


def test_the_first_stage_trains_the_embedding_alone(stages: tuple[Run, Run], teacher: Path) -> None:
    first, _ = stages
    losses = [line["losses"]["lshfm"] for line in first.history]
    assert losses[1] < losses[0]
    # With a learning rate of 0 a run ends with the weights it began with.
    distil = {"methods": {"lshfm": {"hashes": 64}}, "teacher__weights": str(teacher)}
    fresh = train(small(**distil, training__lr=0.0), out=first.path.parent / "fresh")
    learned, initial = trained(first), trained(fresh)
    changed = {key for key in learned if not torch.equal(learned[key], initial[key])}
    assert changed == {EMBEDDING, "fc.embedding.bias"}
    # As published, the statistics of batch normalisation follow the images.
    assert all(x.any() for key, x in learned.items() if key.endswith("running_mean"))


def test_the_second_stage_starts_with_the_aligned_embedding(stages: tuple[Run, Run]) -> None:
    first, second = stages
    before, after = trained(first), trained(second)
    assert before.keys() == after.keys()
    same = [key for key in before if key.endswith(("weight", "bias"))]
    assert all(torch.equal(before[key], after[key]) for key in same)


def test_the_student_to_deploy_is_folded(stages: tuple[Run, Run]) -> None:
    _, second = stages
    weights = load_file(second.path / "student.safetensors")
    assert weights["fc.weight"].shape == (10, 8)
    options = {"widths": [4, 4, 6, 8]}
    student = models.find("resnet8", num_classes=10, weights=str(second.path), options=options)
    unfolded = models.find(
        "resnet8", num_classes=10, weights=str(second.path / "last"), options=options
    )
    images = torch.rand(2, 3, 16, 16)
    assert unfolded.shapes.vector("penultimate") == 10
    torch.testing.assert_close(student.eval()(images), unfolded.eval()(images))


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"called 'fc\.wait' .*did you mean 'fc\.weight'"):
        train(small(training__only=["fc.wait"]), out=tmp_path / "run")
