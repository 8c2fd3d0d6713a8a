"""A trial: the first optimizer steps of a run, with their losses and times."""

import time
from dataclasses import dataclass, replace
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from understudy.config.recipe import Recipe
from understudy.errors import Diverged
from understudy.experiment.build import Experiment
from understudy.training.devices import ComputeSettings
from understudy.training.hardware import PeakMemory
from understudy.training.trainer import Trainer

STEPS = 12
"""Optimizer steps of a trial, if they fit into `SECONDS`."""

SECONDS = 6.0
"""Time of a trial; it ends with the step in which this is over."""

_ONCE = 2
"""First steps, which include what is done once and are not timed."""


@dataclass(frozen=True)
class Trial:
    """What came of a trial.

    Attributes:
        losses: Loss by name of every step, unweighted, and their weighted `total`.
        step_seconds: Time of one step, its images included; None if there was one step alone.
        input_seconds: Time in which one batch of images is made; None as above.
        memory_mb: Peak memory of the steps; None where the system does not tell.
        state_bytes: Size of a saved state: what is trained, and the state of the optimizer.
        diverged: Why the trial ended early, if a loss or a weight was not finite; else empty.
    """

    losses: tuple[dict[str, float], ...]
    step_seconds: float | None
    input_seconds: float | None
    memory_mb: float | None
    state_bytes: int
    diverged: str = ""


class _Enough(Exception):
    """The trial has made its steps."""


def trial(
    recipe: Recipe, experiment: Experiment, accelerator: Accelerator, settings: ComputeSettings
) -> Trial:
    """Make the first optimizer steps of a run at its full learning rate.

    A warm-up is left out: what is not finite later is so in the first steps. Steps are neither
    compiled nor captured.

    Args:
        recipe: Says how to train.
        experiment: Prepared; its student is trained.
        accelerator: Device and precision.
        settings: Resolved compute settings.
    """
    memory = PeakMemory(accelerator.device)
    training = replace(recipe.training, compile=False, warmup_epochs=0.0)
    trainer = Trainer(
        experiment.distiller,
        experiment.train,
        training,
        settings=replace(settings, graphs=False, compile=False),
        seed=recipe.seed,
        accelerator=accelerator,
    )
    steps = _Steps(trainer)
    reason = ""
    try:
        for _ in trainer.fit(steps.after):
            steps.sums = {}
    except _Enough:
        pass
    except Diverged as error:
        reason = str(error)
    peak = memory.mb  # before further batches are made
    return Trial(
        losses=tuple(steps.losses),
        step_seconds=_mean_step(steps.ends),
        input_seconds=_input_seconds(experiment),
        memory_mb=peak,
        state_bytes=_state_bytes(trainer),
        diverged=reason,
    )


def _state_bytes(trainer: Trainer) -> int:
    """Return the bytes of the tensors that a saved state of a run holds."""
    trained = [*trainer.distiller.trainable.state_dict().values()]
    moments = [x for state in trainer.optimizer.state.values() for x in state.values()]
    average = [*trainer.ema.state_dict().values()] if trainer.ema else []
    tensors = (x for x in (*trained, *moments, *average) if isinstance(x, Tensor))
    return sum(x.nbytes for x in tensors)


class _Steps:
    """Notes losses and times of the steps of a trainer."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._began = trainer, time.perf_counter()
        self.losses: list[dict[str, float]] = []
        self.sums: dict[str, float] = {}
        self.ends: list[float] = []

    def after(self) -> None:
        """Note a step; raise `_Enough` after the last one."""
        self.ends.append(time.perf_counter())
        count = self._trainer.position.step
        sums = {name: mean * count for name, mean in self._trainer.mean_losses().items()}
        self.losses.append({name: sums[name] - self.sums.get(name, 0.0) for name in sums})
        self.sums = sums
        if len(self.losses) >= STEPS or self.ends[-1] - self._began > SECONDS:
            raise _Enough


def _mean_step(ends: list[float]) -> float | None:
    timed = ends[min(_ONCE, len(ends)) - 1 :]
    return (timed[-1] - timed[0]) / (len(timed) - 1) if len(timed) > 1 else None


def _input_seconds(experiment: Experiment) -> float | None:
    """Return the seconds in which a batch of images is made, from some after the first ones."""
    began = time.perf_counter()
    ends: list[float] = []
    batches: Any = experiment.train.epoch(0)
    for _ in batches:
        ends.append(time.perf_counter())
        if len(ends) >= STEPS or ends[-1] - began > SECONDS / 3:
            break
    batches.close()
    return _mean_step(ends)
