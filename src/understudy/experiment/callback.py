"""Callback protocol for training progress."""

from typing import Any, Protocol

from understudy.training.trainer import Trainer


class Callback(Protocol):
    """Receives the progress of runs; only that of the first process is called.

    Messages, such as the precision a run computes in, are no part of it: they go to the logger
    `understudy`.
    """

    def series(self, runs: int) -> None:
        """Called before several runs that belong together, with their number."""

    def start(self, trainer: Trainer, name: str) -> None:
        """Called when training begins or continues, with the name of the recipe."""

    def step(self, trainer: Trainer) -> None:
        """Called after every optimizer step, or after sixteen where steps are CUDA graphs."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Called after every epoch with its line of `metrics.jsonl`."""

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Called when a run is finished.

        `metric` is the metric that ranks students, `evaluation` the content of `evaluation.json`.
        """
