"""Share of images for which the first run, with an empty bank, needs the teacher.

CIFAR's crop and mirror have 162 views. A run that fills its bank needs the teacher for views that
have not occurred before. The share is counted, not computed: the loader of a whole run fills a
bank, and the images that the teacher receives are counted.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.pairs import SMALL, write_images

EPOCHS = (60, 120, 240)
"""The papers train for 240."""


def measure(rounds: int) -> dict[str, Any]:
    """Return the share of images that need the teacher, by epochs of the run."""
    return {"teacher forwards": {str(epochs): share(epochs) for epochs in EPOCHS}}


@cache
def share(epochs: int, steps: int = 64) -> float:
    """Return the share of all images of so many epochs that need the teacher."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", steps)
        wanted = ours.recipe(folder, SMALL, {"kd": {}}, bank="empty")
        trainer = ours.trainer(folder, wanted, fill=False)
        with ours.noise_for_a_teacher() as asked:
            for epoch in range(epochs):
                for parts in trainer.loader.epoch(epoch):
                    for shown in parts:
                        trainer.distiller.observe(shown)
        return round(sum(asked) / (epochs * len(trainer.loader.labels)), 4)
