"""Whoever is told how runs go: a progress table, or nobody."""

from typing import Any, Protocol

from understudy.training.trainer import Trainer


class Watcher(Protocol):
    """Someone who is told how training goes."""

    def series(self, runs: int) -> None:
        """The next so many runs belong together."""

    def start(self, trainer: Trainer, name: str) -> None:
        """Training begins or continues."""

    def note(self, text: str) -> None:
        """Something beside the plan: how the run computes, or why it does so otherwise from now."""

    def step(self, trainer: Trainer) -> None:
        """An optimizer step was done."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch was done and perhaps evaluated."""

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """A run is finished; its `evaluation.json`, and the metric in it that ranks students."""
