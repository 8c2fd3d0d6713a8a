"""One tiny trained student of each task, and the images it was measured on as files."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from understudy.comparison.compare import compare
from understudy.config.recipe import Recipe
from understudy.data.sources import drawn_shapes
from understudy.experiment.train import train

NAMES = ("cat", "dog", "owl")
COUNTS = {"train": 4, "test": 3}
TRAINING = {"epochs": 1, "batch": 8, "lr": 0.01}
DETECTOR = {"size": 96, "extra": [16, 16, 16, 16], "backbone": "timm:test_efficientnet"}


def photographs(root: Path) -> Path:
    """A folder of three classes, images of different sizes."""
    draw = torch.Generator().manual_seed(0)
    for split, count in COUNTS.items():
        for name in NAMES:
            for i in range(count):
                file = root / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                coarse = torch.randint(256, (4, 4, 3), generator=draw, dtype=torch.uint8)
                size = (40 + 7 * i, 50 + len(name))
                Image.fromarray(coarse.numpy()).resize(size).save(file)
    return root


def compared(root: Path) -> Path:
    """A comparison of one method with a control, on photographs in `root / "images"`."""
    network = timm.create_model("test_resnet", num_classes=len(NAMES))
    weights = root / "teacher.safetensors"
    save_file(network.state_dict(), weights, metadata={"classes": json.dumps(NAMES)})
    recipe = {
        "name": "photographs",
        "data": {"source": "folder", "root": str(photographs(root / "images")), "size": 32},
        "teacher": {"name": "timm:test_resnet", "weights": str(weights), "size": 48},
        "student": {"name": "timm:test_efficientnet", "size": 40},
        "training": TRAINING,
    }
    return Path(compare(recipe, methods=["kd"], seeds=[0], out=root / "compared", device="cpu"))


def on_shapes(root: Path, task: str, student: dict[str, Any]) -> Path:
    """A run on drawn shapes, whose test images are files in `root / "images"`."""
    (root / "images").mkdir()
    source = drawn_shapes.load("9", "test")
    for i in range(len(source)):
        pixels = source.image(i).permute(1, 2, 0).contiguous()
        Image.fromarray(pixels.numpy()).save(root / "images" / f"{i}.png")
    recipe = {
        "task": task,
        "data": {"source": "drawn_shapes", "root": "9", "augment": "flip"},
        "student": student,
        "training": TRAINING,
    }
    return train(Recipe.load(recipe), out=root / "run", device="cpu").path
