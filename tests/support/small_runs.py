"""A small experiment, and what must not depend on how it is executed."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.papers import over_papers
from tests.support.small_images import CLOTHES
from understudy.config import recipe
from understudy.config.recipe import Recipe
from understudy.experiment.build import Experiment
from understudy.experiment.run_directory import Run
from understudy.experiment.train import train
from understudy.training.devices import accelerator, resolve
from understudy.training.trainer import Trainer

CNN = f"{Path(__file__).with_name('plain_cnn.py')}:factory"

TINY: dict[str, Any] = over_papers(
    {
        "name": "tiny",
        "trust": True,  # teachers are run directories, which name the file of their network
        "data": {"source": "folder", "root": CLOTHES, "images": 200},
        "student": {"name": CNN, "options": {"width": 8}},
        "training": {"epochs": 2, "batch": 32, "lr": 0.05, "schedule": "cosine"},
    }
)


def teacher(path: Path) -> Path:
    """Train a small teacher and return its run directory."""
    return train(
        Recipe.load(TINY, {"student.options": {"width": 16}, "training.epochs": 3}), out=path
    ).path


def distillation(teacher: Path) -> Recipe:
    """Return a short distillation by two methods, one of which measures the teacher first."""
    return replace(
        Recipe.from_dict(TINY),
        teacher=recipe.Network(weights=str(teacher)),
        methods={"lshfm": {"hashes": 64}, "kd": {}},
    )


def trainer_of(experiment: Experiment, wanted: Recipe) -> Trainer:
    """Prepare an experiment on the CPU and return its trainer, without a run directory."""
    distiller, training = experiment.distiller, wanted.training
    cpu = accelerator(training, "cpu", student=distiller.student)
    settings = resolve(training, distiller, cpu.device)
    settings.apply(distiller)
    experiment.prepare()
    return Trainer(
        distiller,
        experiment.train,
        training,
        settings=settings,
        seed=wanted.seed,
        accelerator=cpu,
    )


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


class Crash(Stop):
    """Ends a run after some steps as a lost machine would: with nothing done about it."""

    def step(self, trainer: Trainer) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
