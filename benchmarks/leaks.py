"""Memory and file descriptors of a long run, which must not grow: `python -m benchmarks.leaks`.

Two runs: images in memory behind a bank that is filled as training goes on, and image files that
worker processes decode, started anew in every epoch by `--start` (`spawn`, `fork`).
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from understudy.config.recipe import Recipe
from understudy.experiment.callback import Callback
from understudy.experiment.train import train
from understudy.training.trainer import Trainer

BATCH, CLASSES, EPOCHS = 8, 4, 5
SIDE = 72
"""Side of the image files in pixels; smaller ones would be kept in memory."""
STUDENT = {"name": "resnet8", "options": {"widths": [4, 4, 8, 8]}}
"""As small as can be: what leaks is what is around the network."""
RUNS = ("memory", "files")


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
            note = {"step": self.steps, **_resident(), "fds": _descriptors()}
            self.notes.append(note)
            print(json.dumps(note), flush=True)


def _resident() -> dict[str, float]:
    """Return resident megabytes: of the process itself, and of mapped files such as a bank."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
    names = {"own_mb": "RssAnon", "files_mb": "RssFile", "shared_mb": "RssShmem"}
    return {name: int(fields[key].split()[0]) / 1000 for name, key in names.items()}


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write_images(root: Path, count: int) -> None:
    """Write random images of 72 pixels: `count` for training, two of each class for the test."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("test", 2 * CLASSES)):
        for i in range(images):
            folder = root / split / f"class{i % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def _recipes(folder: Path, steps: int, workers: int) -> dict[str, dict[str, Any]]:
    """Return the recipes of both runs, a few epochs each."""
    images = BATCH * steps // EPOCHS
    training = {"epochs": EPOCHS, "batch": BATCH, "lr": 0.01, "schedule": "constant"}
    memory = {"source": "fashion", "images": images}
    files = {
        **{"source": "folder", "root": str(folder / "images"), "size": 32},
        **{"augment": "resized_crop", "workers": workers},
    }
    taught = {"methods": {"kd": {}}, "bank": {"path": str(folder / "bank")}}
    return {
        "memory": {"data": memory, "student": STUDENT, "training": training, **taught},
        "files": {"data": files, "student": STUDENT, "training": training},
    }


def measure(
    folder: Path, *, steps: int, workers: int, every: int, only: Sequence[str] = RUNS
) -> dict[str, Any]:
    """Return the notes of both runs."""
    write_images(folder / "images", BATCH * steps // EPOCHS)
    notes = {}
    teacher = {"data": {"images": 64}, "student": {"name": "resnet14"}, "training": {"epochs": 1}}
    weights = train(Recipe.load(teacher), out=folder / "teacher").path
    for name, recipe in _recipes(folder, steps, workers).items():
        if name not in only:
            continue
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
    parser.add_argument("--only", choices=RUNS, nargs="+", default=RUNS)
    options = parser.parse_args()
    if options.start:
        multiprocessing.set_start_method(options.start, force=True)
    every = max(1, options.steps // 10)
    with tempfile.TemporaryDirectory() as name:
        sizes = {"steps": options.steps, "workers": options.workers, "every": every}
        measure(Path(name), **sizes, only=options.only)


if __name__ == "__main__":
    main()
