"""What a recipe and its task ask of images with boxes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.data.sources import coco
from understudy.errors import DataError, RecipeError, UnderstudyError
from understudy.experiment.images import read_images

Paint = Callable[..., Path]


@pytest.fixture
def boxed(tmp_path: Path, paint: Paint) -> str:
    """Four images with boxes, one of them faulty."""
    names = [paint(f"train/{i}.png", seed=i).name for i in range(4)]
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "category_id": i % 2, "bbox": [2, 4, 90 if i == 3 else 30, 26]}
            for i in range(4)
        ],
        "categories": [{"id": i, "name": f"class{i}"} for i in range(2)],
    }
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(content))
    return str(tmp_path)


def sources(task: str, **data: Any) -> Any:
    asked = Recipe.from_dict({"task": task, "data": {"validation": 0.5} | data})
    both = read_images(asked, tasks.find(task))
    return both.train, both.test


def test_the_recipe_chooses_what_becomes_of_faulty_boxes(boxed: str) -> None:
    train, held = sources("detection", source="coco", root=boxed)
    assert len(train) + len(held) == 4
    assert (train.labels == 1).any(0).all()
    assert (held.labels == 1).any(0).all()
    assert len(train.skipped) == 1
    train, held = sources("multilabel", source="coco", root=boxed, faulty="skip")
    assert len(train) + len(held) == 3
    with pytest.raises(DataError, match="partly outside of the image"):
        sources("detection", source="coco", root=boxed, faulty="fail")
    assert coco.load(boxed, "train").labels.tolist() == [[1, 0], [0, 1]] * 2


@pytest.mark.parametrize(
    ("task", "data", "error", "message"),
    [
        ("classification", {"source": "coco"}, DataError, "'classification' needs the one class"),
        ("multilabel", {"source": "fashion"}, DataError, "needs the presence of each class"),
        ("detection", {"source": "fashion"}, DataError, "'detection' needs boxes of the objects"),
        ("detection", {"source": "coco", "labels": 2}, RecipeError, "hide some, but no boxes"),
        ("detection", {"source": "coco", "labelled_share": 0.5}, RecipeError, "all boxes are"),
        ("detection", {"source": "coco", "size": 64}, RecipeError, "by its own options: leave it"),
        (
            "classification",
            {"source": "fashion", "faulty": "fail"},
            RecipeError,
            r"data\.faulty=fail is about boxes, which the source 'fashion' does not read",
        ),
    ],
)
def test_a_task_refuses_images_that_do_not_tell(
    boxed: str, task: str, data: dict[str, Any], error: type[UnderstudyError], message: str
) -> None:
    root = boxed if data["source"] == "coco" else ""
    with pytest.raises(error, match=message):
        sources(task, root=root, **data)


def test_a_validation_file_beside_a_test_file_chooses(boxed: str, paint: Paint) -> None:
    content = json.loads(Path(boxed, "train/_annotations.coco.json").read_text())
    for number, split in enumerate(("valid", "test"), 1):
        for image in content["images"][:number]:
            paint(f"{split}/{image['file_name']}", seed=10 * number + image["id"])
        shown = {"images": content["images"][:number], "annotations": content["annotations"][:1]}
        Path(boxed, split, "_annotations.coco.json").write_text(json.dumps(content | shown))
    recipe = Recipe.from_dict({"task": "detection", "data": {"source": "coco", "root": boxed}})
    images = read_images(recipe, tasks.find("detection"))
    assert images.counts()["validation"] == {
        "images": 1,
        "origin": "coco: valid/_annotations.coco.json",
    }
    assert images.counts()["test"] == {"images": 2, "origin": "coco: test/_annotations.coco.json"}
