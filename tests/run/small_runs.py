"""A small experiment, and what must not depend on how it is executed."""

import json
from pathlib import Path
from typing import Any

from understudy.run import Run

CNN = f"{Path(__file__).with_name('plain_cnn.py')}:factory"

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"images": 200},
    "student": {"name": CNN, "options": {"width": 8}},
    "training": {"epochs": 2, "batch": 32, "lr": 0.05, "schedule": "cosine"},
}


def outcome(run: Run) -> tuple[list[dict[str, Any]], bytes]:
    """What must not depend on interruptions: metrics without times, and the student's weights."""
    timed = ("seconds", "images_per_second")
    lines = [{k: v for k, v in line.items() if k not in timed} for line in run.epochs()]
    return json.loads(json.dumps(lines)), (run.path / "student.safetensors").read_bytes()
