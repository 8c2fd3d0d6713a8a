"""A table of two teachers and three rows on a data set in the form of CIFAR-100, but small."""

from pathlib import Path

import numpy as np
from PIL import Image

SCALED = 0.5
"""Share of the epochs that tests train."""

_ROWS = """
about:
  paper: Somebody, 2026
  table: table 1
  epoch: last
  runs: 3
  teachers: teachers.yaml
data: {source: cifar100, augment: flip}
student: {name: resnet8, options: {widths: [4, 4, 6, 8]}}
teacher: {name: resnet8}
methods:
  kd: {weight: {value: 0.9, warmup_epochs: 2}}
task_weight: 0.5
training: {epochs: 4, batch: 64, lr: 0.1, milestones: [2, 3]}
rows:
  wide:
    teacher.options.widths: [16, 16, 24, 32]
    about.published: 40.0 ± 0.2
    about.teacher: 50.0
  small:
    teacher.options.widths: [8, 8, 12, 16]
    about.published: 1.00
  unpublished:
    teacher.options.widths: [8, 8, 12, 16]
    methods.pefd.weight: 1.0
"""

_TEACHERS = """
about: {paper: "Somebody, 2026", table: table 1}
data: {source: cifar100, augment: flip}
training: {epochs: 4, batch: 64, lr: 0.1, milestones: [2, 3]}
rows:
  large: {student.name: resnet8, student.options.widths: [16, 16, 24, 32]}
  medium: {student.name: resnet8, student.options.widths: [8, 8, 12, 16]}
"""


def pictures(root: Path) -> Path:
    """Draw 100 classes, each of another colour with noise: 300 pictures to train on, 100 to test.

    They are in the folders that `cifar100` reads.
    """
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (100, 3))
    for split, count in (("train", 3), ("test", 1)):
        for label, colour in enumerate(colours):
            folder = root / split / f"class{label:02}"
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-30, 31, (32, 32, 3))
                pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.bmp")
    return root


def table(folder: Path) -> Path:
    """Write the table and that of its teachers; return the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teachers.yaml").write_text(_TEACHERS)
    (folder / "mine.yaml").write_text(_ROWS)
    return folder / "mine.yaml"
