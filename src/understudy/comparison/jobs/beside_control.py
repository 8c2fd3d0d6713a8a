"""Put the control's metric after the same epoch beside that of an arm. Loads no torch."""

from typing import Any, final

from understudy.comparison.arms import CONTROL, Job
from understudy.experiment.callback import Callback
from understudy.experiment.progress import value_of
from understudy.experiment.run_directory import Run


@final
class BesideControl(Callback):
    """Passes the records of one job on, with the metric of the control of its seed.

    Args:
        job: Run of a comparison.
        callback: Told of its epochs.
    """

    def __init__(self, job: Job, callback: Callback) -> None:
        self._job, self._callback, self._metric = job, callback, ""

    def start(self, trainer: Any, name: str) -> None:
        """Pass on that training begins."""
        self._metric = trainer.distiller.trainable.task.headline
        self._callback.start(trainer, name)

    def step(self, trainer: Any) -> None:
        """Pass on a step."""
        self._callback.step(trainer)

    def epoch(self, record: dict[str, Any]) -> None:
        """Pass on the record of an epoch, with the control's metric under `control` if known."""
        self._callback.epoch(with_control(record, self._job, self._metric))

    def end(self, name: str, metric: str, evaluation: dict[str, Any]) -> None:
        """Pass on the result."""
        self._callback.end(name, metric, evaluation)


def with_control(record: dict[str, Any], job: Job, metric: str) -> dict[str, Any]:
    """Return the record of an epoch with the control's metric after the same epoch, if known."""
    if job.arm == CONTROL:
        return record
    # Runs of a comparison lie at `<arm>/seed<n>`.
    control = Run(job.run.path.parents[1] / CONTROL / job.run.path.name)
    of_epoch = (x for x in control.history if x["epoch"] == record["epoch"])
    value = next(
        (value_of(x, metric) for x in of_epoch if x.get("split") == record.get("split")), None
    )
    return record if value is None else {**record, "control": value}
