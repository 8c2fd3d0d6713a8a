"""Whoever asks for images of one size is told where a network computes at another."""

import logging
from pathlib import Path
from typing import Any

import pytest

from understudy import tasks
from understudy.config.recipe import Network, Recipe
from understudy.errors import NetworkError
from understudy.experiment import build, networks


def messages(
    tree: Path, log: pytest.LogCaptureFixture, student: dict[str, Any], **data: Any
) -> list[tuple[int, str]]:
    spec = {"source": "folder", "root": str(tree), "augment": "resized_crop"} | data
    recipe = Recipe.from_dict({"data": spec, "student": student, "training": {"batch": 2}})
    build.experiment(recipe)
    said = [(record.levelno, record.getMessage()) for record in log.records]
    return [(level, sentence) for level, sentence in said if "to compute at that size" in sentence]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("timm:test_resnet", "enlarges the images of 64 pixels (data.size) to 160"),
        ("torchvision:resnet18", "enlarges the images of 64 pixels (data.size) to 224"),
        ("resnet8", "reduces the images of 64 pixels (data.size) to 32"),
    ],
)
def test_a_size_that_a_network_changes_is_a_warning(
    tree: Path, log: pytest.LogCaptureFixture, name: str, change: str
) -> None:
    ((level, sentence),) = messages(tree, log, {"name": name, "size": None}, size=64)
    assert level == logging.WARNING
    assert change in sentence
    assert "set student.size to 64" in sentence


def test_a_square_network_distorts_oblong_views(tree: Path, log: pytest.LogCaptureFixture) -> None:
    student = {"name": "resnet8", "size": None}
    ((level, sentence),) = messages(tree, log, student, size=[64, 48])
    assert level == logging.WARNING
    assert "distorts the images of 64 × 48 pixels (data.size) to 32, the size" in sentence
    assert "set student.size to 64 48" in sentence


DEIT = {"depth": 1, "embed_dim": 32, "num_heads": 2}


def test_a_transformer_is_built_for_the_size_it_is_told(log: pytest.LogCaptureFixture) -> None:
    spec = Network(name="timm:deit_tiny_patch16_224", size=(64, 32), options=DEIT)
    recipe, task = Recipe(teacher=spec, methods={}), tasks.find("none")
    teacher = networks.trained(recipe, (), task, role="teacher", view_size=64)
    assert teacher.shapes["patches"] == (32, 4, 2)
    assert "built for images of 64 × 32 pixels by timm's option img_size" in log.text


@pytest.mark.parametrize(
    ("name", "options", "cause"),
    [
        ("timm:test_vit", {}, r"height \(63\) should be divisible by patch size"),
        ("timm:test_resnet", {"img_size": [63, 32]}, "unexpected keyword argument 'img_size'"),
    ],
)
def test_a_size_that_a_network_cannot_have_is_refused_with_the_cause(
    name: str, options: dict[str, Any], cause: str
) -> None:
    spec = Network(name=name, size=(63, 32), options=options)
    recipe, task = Recipe(teacher=spec, methods={}), tasks.find("none")
    with pytest.raises(NetworkError, match=cause):
        networks.trained(recipe, (), task, role="teacher", view_size=64)


def test_a_network_told_its_size_computes_at_it(tree: Path, log: pytest.LogCaptureFixture) -> None:
    student = {"name": "timm:test_resnet", "size": 64}
    assert not messages(tree, log, student, size=64)
    experiment = build.experiment(
        Recipe.from_dict(
            {
                "data": {"source": "folder", "root": str(tree), "size": 64},
                "student": student,
                "training": {"batch": 2},
            }
        )
    )
    assert experiment.distiller.student.shapes["stage4"][1:] == (2, 2)


@pytest.mark.parametrize(
    ("student", "data"),
    [
        ({"name": "timm:test_resnet"}, {}),
        ({"name": "timm:test_resnet", "size": 96}, {"size": 64}),
        ({"name": "resnet8"}, {"size": 32}),
    ],
)
def test_sizes_that_agree_or_were_chosen_need_no_words(
    tree: Path, log: pytest.LogCaptureFixture, student: dict[str, Any], data: dict[str, Any]
) -> None:
    assert not messages(tree, log, student, **data)
