"""What the first run with an empty bank asks of the teacher, by the views it really shows.

CIFAR's crop and mirror have 162 views. A run that fills its bank as it goes needs the teacher for
those it has not met. The share is counted, not computed: a bank is filled by the loader of a run of
so many epochs, and the images are counted that the teacher is asked for.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.pairs import SMALL, write_images

EPOCHS = (60, 120, 240)
"""240 are those of the papers."""


def measure(rounds: int) -> dict[str, Any]:
    """Epochs of the run → share of the images shown that the teacher is asked for."""
    return {"teacher forwards": {str(epochs): share(epochs) for epochs in EPOCHS}}


@cache
def share(epochs: int, steps: int = 64) -> float:
    """Images that the teacher is asked for, of all that are shown in so many epochs."""
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
