"""Callback protocol for training progress."""

from typing import TYPE_CHECKING, Any, Protocol, final

if TYPE_CHECKING:
    from understudy.training.trainer import Trainer


class Callback(Protocol):
    """Receives the progress of runs, in the first process only.

    Of runs that are trained at once (`compare(..., jobs=2)`), it is told of `series`, `epoch` and
    `end` alone, since a trainer cannot leave its process. Their epochs then alternate, and the
    entry `run` of a record names the run.

    A subclass overrides what it needs; the other methods do nothing. Messages, such as the
    precision a run computes in, are not part of it: they go to the logger `understudy`.

    >>> class Losses(Callback):
    ...     def epoch(self, record: dict[str, Any]) -> None:
    ...         print(record["epoch"], record["losses"]["total"])
    >>> Losses().epoch({"epoch": 1, "losses": {"total": 2.5}})
    1 2.5
    """

    # Methods `return`, since type checkers take an empty body of a protocol for an abstract one.

    def series(self, runs: int) -> None:
        """Called with the number of runs before several runs that belong together."""
        return

    def start(self, trainer: "Trainer", name: str) -> None:
        """Called with the recipe's name when training begins or continues."""
        return

    def step(self, trainer: "Trainer") -> None:
        """Called after every optimizer step, or after sixteen where steps are CUDA graphs."""
        return

    def epoch(self, record: dict[str, Any]) -> None:
        """Called after every epoch with its line of `metrics.jsonl`.

        If they are known, `teacher` is the metric that ranks students of the teacher, and `control`
        that of the control of a comparison after the same epoch, both on the same images.
        """
        return

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Called when a run is finished.

        `metric` is the metric that ranks students, `evaluation` the content of `evaluation.json`.
        """
        return


@final
class Callbacks(Callback):
    """Passes progress on to several callbacks, in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        self._callbacks = callbacks

    def series(self, runs: int) -> None:
        """Pass on `series`."""
        for callback in self._callbacks:
            callback.series(runs)

    def start(self, trainer: "Trainer", name: str) -> None:
        """Pass on `start`."""
        for callback in self._callbacks:
            callback.start(trainer, name)

    def step(self, trainer: "Trainer") -> None:
        """Pass on `step`."""
        for callback in self._callbacks:
            callback.step(trainer)

    def epoch(self, record: dict[str, Any]) -> None:
        """Pass on `epoch`."""
        for callback in self._callbacks:
            callback.epoch(record)

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Pass on `end`."""
        for callback in self._callbacks:
            callback.end(name, metric, evaluation)
