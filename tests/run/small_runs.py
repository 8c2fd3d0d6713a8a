"""A small experiment, and what must not depend on how it is executed."""

import json
import os
from pathlib import Path
from typing import Any

from understudy.experiment.run_directory import Run
from understudy.training.trainer import Trainer

CNN = f"{Path(__file__).with_name('plain_cnn.py')}:factory"

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"images": 200},
    "student": {"name": CNN, "options": {"width": 8}},
    "training": {"epochs": 2, "batch": 32, "lr": 0.05, "schedule": "cosine"},
}


def outcome(run: Run) -> tuple[list[dict[str, Any]], bytes]:
    """What must not depend on interruptions: metrics without times, and the student's weights."""
    timed = ("seconds", "images_per_second", "teacher_seconds")
    lines = [{k: v for k, v in line.items() if k not in timed} for line in run.history]
    return json.loads(json.dumps(lines)), (run.path / "student.safetensors").read_bytes()


class Stop:
    """Sends this process a signal after some steps."""

    def __init__(self, after: int, number: int) -> None:
        self.left, self.number = after, number

    def series(self, runs: int) -> None: ...

    def start(self, trainer: Trainer, name: str) -> None: ...

    def step(self, trainer: Trainer) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)

    def epoch(self, record: dict) -> None: ...

    def end(self, name: str, metric: str, evaluation: dict) -> None: ...
