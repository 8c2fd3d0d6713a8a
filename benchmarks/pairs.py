"""The measured pairs of networks, and their images."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

BATCH, CLASSES, SIDE = 64, 100, 32


@dataclass(frozen=True)
class Pair:
    """A student and its teacher, by their names in Understudy."""

    student: str
    teacher: str

    def __str__(self) -> str:
        return f"{self.teacher} → {self.student}"


PAIRS = (
    Pair("resnet8x4", "resnet32x4"),
    Pair("wrn_16_2", "wrn_40_2"),
    Pair("mobilenetv2", "resnet50"),
)
SMALL = Pair("resnet8", "resnet20")
"""Pair for measurements that do not depend on the size of the networks."""


def write_images(folder: Path, steps: int) -> Path:
    """Write CIFAR-100 with random pixels, enough for so many steps per epoch.

    Pixels do not affect the speed. The peers get torchvision's pickles; Understudy gets folders of
    images, since it would refuse pickles with a wrong checksum.
    """
    each = -(-steps * BATCH // CLASSES)
    pixels = np.random.default_rng(0).integers(
        256, size=(CLASSES * each, 3, SIDE, SIDE), dtype=np.uint8
    )
    _write_pickles(folder / "cifar-100-python", pixels)
    for split, count in (("train", each), ("test", 1)):
        for number in range(CLASSES * count):
            path = folder / split / f"{number % CLASSES:02}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number].transpose(1, 2, 0)).save(path)
    return folder


def _write_pickles(folder: Path, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for name, images in (("train", pixels), ("test", pixels[:CLASSES])):
        labels = [number % CLASSES for number in range(len(images))]
        content = {"data": images.reshape(len(images), -1), "fine_labels": labels}
        (folder / name).write_bytes(pickle.dumps(content))
    names = [f"{number:02}" for number in range(CLASSES)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))


def random_weights(module: torch.nn.Module, path: Path) -> Path:
    """Write a checkpoint of an untrained network, in the format of the peers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": module.state_dict()}, path)
    return path
