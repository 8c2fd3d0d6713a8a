"""Whoever asks for images of one size is told where a network computes at another."""

import logging
from pathlib import Path
from typing import Any

import pytest

from understudy.config.recipe import Recipe
from understudy.experiment import build


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
