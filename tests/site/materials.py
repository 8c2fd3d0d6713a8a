"""What the reader of a page has before the first command: photographs, annotations, runs."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from tests.support.trained_students import NAMES, photographs
from understudy.data.sources import drawn_shapes

RECIPE = """
data: {source: folder, root: my_images, size: 32, augment: resized_crop}
student: {name: timm:test_efficientnet, size: 32}
teacher: {weights: runs/teacher}
methods: {kd: {}}
training: {epochs: 1}
bank: {views: 1}
"""
PLAIN = """
data: {source: folder, root: my_images, size: 32}
student: {name: timm:test_efficientnet, size: 32}
training: {epochs: 1}
"""
XML = """<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax>
<ymax>{3}</ymax></bndbox></object>"""


@dataclass(frozen=True)
class Material:
    """What one page presupposes."""

    after: str = ""
    """The page whose folder this one begins in: its runs are there."""
    first: str = ""
    """A command that the reader has run before."""
    detector: bool = False
    """Whether the reader has trained a detector."""
    papers: bool = False
    """Whether the reader has the images of CIFAR-100: 100 classes, here of noise."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the reader has: name → content."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Words of its commands that stand for something of the reader's."""


AFTER = "docs/own_folder.md"
SHAPES = {"DIR": "shapes"}
PAPER = {"DIR": "cifar100", "RUN_OR_FILE": "runs/teacher", "vgg13_vgg8": "resnet110_resnet20"}
TEACHER = "understudy train cifar100/teachers/{} --data.root cifar100 --out runs/teacher"

MATERIALS = {
    "docs/bank.md": Material(files={"recipe.yaml": RECIPE}, after=AFTER),
    "docs/data.md": Material(
        files={"recipe.yaml": PLAIN}, after=AFTER, words={"more_images": "photos"}
    ),
    "docs/doctor.md": Material(first="understudy train fashion/teacher --out runs/teacher"),
    "docs/deploy.md": Material(
        after=AFTER, detector=True, words={"w.pth": "runs/teacher/student.safetensors"}
    ),
    "docs/faq.md": Material(after=AFTER),
    "docs/scale.md": Material(after=AFTER),
    "docs/detection.md": Material(words=SHAPES),
    "docs/letkd.md": Material(first=TEACHER.format("resnet56"), words=PAPER, papers=True),
    "docs/recipes.md": Material(first=TEACHER.format("resnet32x4"), words=PAPER, papers=True),
    "docs/multilabel.md": Material(words={**SHAPES, "RUN_OR_FILE": "runs/teacher"}),
}
"""Page → what it presupposes; all others begin with `folder`."""


def folder(root: Path) -> Path:
    """Write the pictures that every page may use."""
    root.mkdir(parents=True, exist_ok=True)
    photographs(root / "my_images")
    draw = torch.Generator().manual_seed(1)
    for name in (*(f"photos/{i}.jpg" for i in range(6)), "more/a.png"):
        file = root / name
        file.parent.mkdir(exist_ok=True)
        pixels = torch.randint(256, (4, 4, 3), generator=draw, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((60, 48)).save(file)
    shapes(root / "shapes")
    shutil.copytree(root / "my_images" / "test", root / "other_images")
    assert {x.name for x in (root / "other_images").iterdir()} == set(NAMES)
    return root


def shapes(root: Path) -> None:
    """Write drawn shapes with their boxes, in the XML form of VOC."""
    for split, count in (("train", "6"), ("test", "3")):
        source = drawn_shapes.load(count, split)  # type: ignore[arg-type]
        (root / split).mkdir(parents=True)
        for i in range(len(source)):
            image, target = source.image(i), source.target(i)
            file = root / split / f"{i}.jpg"
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file)
            objects = "".join(
                OBJECT.format(*(round(x) for x in box), name=source.classes[label])
                for box, label in zip(
                    target["boxes"].tolist(), target["labels"].tolist(), strict=True
                )
            )
            _, height, width = image.shape
            text = XML.format(width=width, height=height, objects=objects)
            file.with_suffix(".xml").write_text(text, encoding="utf-8")


def cifar100(root: Path) -> None:
    """Write 100 classes of two training images and one test image, as in CIFAR-100."""
    draw = torch.Generator().manual_seed(2)
    for split, count in (("train", 2), ("test", 1)):
        for label in range(100):
            folder = root / split / f"class{label:02}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (32, 32, 3), generator=draw, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
