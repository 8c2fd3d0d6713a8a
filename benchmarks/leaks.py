"""Memory and file descriptors of a long run, which must not grow: `python -m benchmarks.leaks`.

Two runs: images in memory behind a bank that is filled as training goes on, and image files that
worker processes decode, started anew in every epoch by `--start` (`spawn`, `fork`).
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from understudy.config.recipe import Recipe
from understudy.experiment.callback import Callback
from understudy.experiment.train import train
from understudy.training.trainer import Trainer

BATCH, CLASSES = 8, 4


class Watch(Callback):
    """Notes resident memory and open file descriptors of this process every few steps.

    Args:
        every: Number of steps between two notes.
    """

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0
        self.notes: list[dict[str, float]] = []

    def step(self, trainer: Trainer) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps % self.every == 0:
            note = {"step": self.steps, "rss_mb": _rss() / 1e6, "fds": _descriptors()}
            self.notes.append(note)
            print(json.dumps(note), flush=True)


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write_images(root: Path, count: int) -> None:
    """Write random images of 72 pixels: `count` for training, two of each class for the test."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("test", 2 * CLASSES)):
        for i in range(images):
            folder = root / split / f"class{i % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def _recipes(folder: Path, steps: int, workers: int) -> dict[str, dict[str, Any]]:
    """Return the recipes of both runs, ten epochs each."""
    epochs = 10
    images = BATCH * steps // epochs
    training = {"epochs": epochs, "batch": BATCH, "lr": 0.01, "schedule": "constant"}
    memory = {"source": "fashion", "images": images}
    files = {
        **{"source": "folder", "root": str(folder / "images"), "size": 64},
        **{"augment": "resized_crop", "workers": workers},
    }
    taught = {"methods": {"kd": {}}, "bank": {"path": str(folder / "bank")}}
    return {
        "memory": {"data": memory, "student": {"name": "resnet8"}, "training": training, **taught},
        "files": {"data": files, "student": {"name": "resnet8"}, "training": training},
    }


def measure(folder: Path, *, steps: int, workers: int, every: int) -> dict[str, Any]:
    """Return the notes of both runs."""
    write_images(folder / "images", BATCH * steps // 10)
    notes = {}
    teacher = {"data": {"images": 64}, "student": {"name": "resnet14"}, "training": {"epochs": 1}}
    weights = train(Recipe.load(teacher), out=folder / "teacher").path
    for name, recipe in _recipes(folder, steps, workers).items():
        print(name, flush=True)
        taught = {"teacher.weights": str(weights)} if "methods" in recipe else {}
        watch = Watch(every)
        train(Recipe.load(recipe, taught), out=folder / name, device="cpu", callback=watch)
        notes[name] = watch.notes
    return notes


def main() -> None:
    """Run both and print what was noted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", choices=multiprocessing.get_all_start_methods())
    options = parser.parse_args()
    if options.start:
        multiprocessing.set_start_method(options.start, force=True)
    every = max(1, options.steps // 10)
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), steps=options.steps, workers=options.workers, every=every)


if __name__ == "__main__":
    main()
