"""Folders of photographs with boxes, from the teacher's first step to a resumed student."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from tests.support.small_runs import Stop
from understudy.config.recipe import Recipe
from understudy.data.sources import drawn_shapes
from understudy.errors import Interrupted
from understudy.experiment.evaluate import evaluate
from understudy.experiment.train import distill, train

COUNTS = {"train": 6, "test": 3}
SMALL = {"channels": 64, "min_size": 64, "max_size": 96}
OPTIONS: dict[str, dict[str, Any]] = {
    "fasterrcnn": SMALL | {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_test": 30},
    "fcos": SMALL,  # whose norms have 32 groups
    "ssdlite": {"size": 96, "extra": [32, 32, 32, 32]},
}
TEACHER, STUDENT = {"backbone": "timm:test_resnet"}, {"backbone": "timm:test_efficientnet"}


def drawn(root: Path, split: str) -> list[tuple[str, Tensor, list[str]]]:
    """Saves the images of a split; name, boxes and classes of each."""
    source, found = drawn_shapes.load("9", "train"), []
    (root / split).mkdir(parents=True)
    first = 0 if split == "train" else COUNTS["train"]
    for i in range(first, first + COUNTS[split]):
        name, target = f"{i}.png", source.target(i)
        pixels = source.image(i).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / split / name)
        kinds = [source.classes[k] for k in target["labels"].tolist()]
        found.append((name, target["boxes"].as_subclass(Tensor), kinds))
    return found


def voc(root: Path) -> None:
    """XML beside the images."""
    for split in COUNTS:
        for name, boxes, kinds in drawn(root, split):
            objects = "".join(
                f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
                f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                for kind, (a, b, c, d) in zip(kinds, boxes.tolist(), strict=True)
            )
            text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
            (root / split / name).with_suffix(".xml").write_text(text)


def coco(root: Path) -> None:
    """A JSON of each split."""
    (root / "annotations").mkdir(parents=True)
    for split in COUNTS:
        images, annotations = [], []
        for number, (name, boxes, kinds) in enumerate(drawn(root, split)):
            images.append({"id": number, "file_name": name, "height": 96, "width": 96})
            annotations += [
                {
                    "id": 100 * number + k,
                    "image_id": number,
                    "category_id": 1 + drawn_shapes.CLASSES.index(kind),
                    "bbox": [a, b, c - a, d - b],
                    "area": (c - a) * (d - b),
                    "iscrowd": 0,
                }
                for k, (kind, (a, b, c, d)) in enumerate(zip(kinds, boxes.tolist(), strict=True))
            ]
        categories = [{"id": 1 + i, "name": name} for i, name in enumerate(drawn_shapes.CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    """A text file beside each image."""
    for split in COUNTS:
        for name, boxes, kinds in drawn(root, split):
            lines = [
                f"{drawn_shapes.CLASSES.index(kind)} {(a + c) / 192} {(b + d) / 192} "
                f"{(c - a) / 96} {(d - b) / 96}"
                for kind, (a, b, c, d) in zip(kinds, boxes.tolist(), strict=True)
            ]
            (root / split / name).with_suffix(".txt").write_text("\n".join(lines))
    names = ", ".join(drawn_shapes.CLASSES)
    (root / "data.yaml").write_text(f"train: train\ntest: test\nnames: [{names}]\n")


def wanted(family: str, source: str, root: Path, backbone: dict[str, str]) -> Recipe:
    return Recipe.from_dict(
        {
            "task": "detection",
            "data": {"source": source, "root": str(root), "augment": "flip"},
            "student": {"name": family, "options": OPTIONS[family] | backbone},
            "training": {"epochs": 1, "batch": 2, "lr": 0.01, "schedule": "constant"},
        }
    )


FORMATS = {"voc": voc, "coco": coco, "yolo": yolo}


@pytest.mark.parametrize(
    ("family", "source"),
    # No family sees from which kind of file its boxes come. Those with a pyramid take another
    # backbone in one way; each of them is interrupted and resumed in `test_detection_run`.
    [("fasterrcnn", "voc"), ("fcos", "coco"), ("ssdlite", "yolo")],
)
def test_students_of_another_backbone_learn_and_resume(
    family: str, source: str, tmp_path: Path
) -> None:
    FORMATS[source](tmp_path / "images")
    teacher = train(wanted(family, source, tmp_path / "images", TEACHER), out=tmp_path / "teacher")
    plain = wanted(family, source, tmp_path / "images", STUDENT).to_dict()
    learning = {"teacher.weights": str(teacher.path), "methods": {"pefd": {}}}
    with pytest.raises(Interrupted):
        distill(
            Recipe.load(plain, learning), out=tmp_path / "run", callback=Stop(1, signal.SIGTERM)
        )
    run = distill(Recipe.load(plain, learning), out=tmp_path / "run", resume=True)
    assert run.history[-1]["step"] == 3
    assert evaluate(run.path).metrics == pytest.approx(run.evaluation["metrics"])
