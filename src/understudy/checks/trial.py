"""A trial: the first optimizer steps of a run, with their losses and times."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from accelerate import Accelerator
from torch import Tensor

from understudy.batch import Batch
from understudy.config.recipe import Recipe, Training
from understudy.errors import Diverged
from understudy.experiment.build import Experiment
from understudy.training.devices import ComputeSettings
from understudy.training.hardware import PeakMemory
from understudy.training.trainer import Trainer

STEPS = 12
"""Optimizer steps of a trial, if they fit into `SECONDS`."""

SECONDS = 6.0
"""Time of a trial; it ends with the step in which this is over."""

_REMEMBERED = 2**28
"""Bytes of the teacher's features that are kept between trials."""

_ONCE = 2
"""First steps, which include what is done once and are not timed."""

_OF_ACCELERATE = ("forward", "_original_forward", "_is_accelerate_prepared")
"""What Accelerate sets on a module, which it prepares once: a `forward` that casts."""


@dataclass(frozen=True)
class Trial:
    """What came of a trial.

    Attributes:
        losses: Loss by name of every step, unweighted, and their weighted `total`.
        step_seconds: Time of one step, its images included; None if there was one step alone, or
            it was not to be timed.
        input_seconds: Time in which one batch of images is made; None as above.
        memory_mb: Peak memory of the steps; None where the system does not tell.
        state_bytes: Size of a saved state: what is trained, and the state of the optimizer.
        growth: Norm of all weights that are trained, after the steps, as a multiple of that before.
        diverged: Why the trial ended early, if a loss or a weight was not finite; else empty.
    """

    losses: tuple[dict[str, float], ...]
    step_seconds: float | None
    input_seconds: float | None
    memory_mb: float | None
    state_bytes: int
    growth: float = 1.0
    diverged: str = ""


class _Enough(Exception):
    """The trial has made its steps."""


@final
class Bench:
    """A student to try training on, which every trial finds as it was before the first.

    A warm-up is left out: what is not finite later is so in the first steps. Steps are neither
    compiled nor captured.

    Args:
        recipe: Says how to train.
        experiment: Prepared; its student is trained.
        start: State that every trial begins with: that of another student and its methods.
        placed: Makes the device and precision of a trial, which remembers what was trained on it.
        settings: Resolved compute settings.
    """

    def __init__(
        self,
        recipe: Recipe,
        experiment: Experiment,
        start: Mapping[str, Any],
        placed: Callable[[], Accelerator],
        settings: ComputeSettings,
    ) -> None:
        self._recipe, self._experiment, self._start = recipe, experiment, start
        self._placed = placed
        self._settings = replace(settings, graphs=False, compile=False)
        self._remembered = {
            each.name: _Remembered(each.observe_live) for each in experiment.distiller.distillations
        }

    def trial(self) -> Trial:
        """Make the first optimizer steps of the run at its full learning rate, and time them."""
        trainer = self._trainer(self._recipe.training)
        memory = PeakMemory(trainer.accelerator.device)
        before, steps = _norm(trainer), _Steps(trainer)
        reason = steps.make()
        peak = memory.mb  # before further batches are made
        return Trial(
            losses=tuple(steps.losses),
            step_seconds=_mean_step(steps.ends),
            input_seconds=_input_seconds(self._experiment),
            memory_mb=peak,
            state_bytes=_state_bytes(trainer),
            growth=_norm(trainer) / before,
            diverged=reason,
        )

    def at(self, lr: float) -> Trial:
        """Make the same steps at another learning rate; neither times nor memory are noted.

        The teachers' features of the steps before are used again.
        """
        if self._experiment.task.truth != "objects":  # else it is read where the student looks
            for each in self._experiment.distiller.distillations:
                each.replay = self._remembered[each.name]
        trainer = self._trainer(replace(self._recipe.training, lr=lr))
        before, steps = _norm(trainer), _Steps(trainer)
        reason = steps.make()
        return Trial(
            losses=tuple(steps.losses),
            step_seconds=None,
            input_seconds=None,
            memory_mb=None,
            state_bytes=_state_bytes(trainer),
            growth=_norm(trainer) / before,
            diverged=reason,
        )

    def _trainer(self, training: Training) -> Trainer:
        """Return a trainer of the student, which is as it was before the first trial."""
        trainable = self._experiment.distiller.trainable
        for name in _OF_ACCELERATE:
            trainable.__dict__.pop(name, None)
        trainable.load_state_dict(self._start)
        trainable.zero_grad()
        return Trainer(
            self._experiment.distiller,
            self._experiment.train,
            replace(training, compile=False, warmup_epochs=0.0),
            settings=self._settings,
            seed=self._recipe.seed,
            accelerator=self._placed(),
        )


@final
class _Remembered:
    """The teacher's features of the batches of a trial: the next trial has the same batches.

    Args:
        live: Computes them.
    """

    def __init__(self, live: Callable[[Batch], Any]) -> None:
        self._live, self._bytes = live, 0
        self._known: dict[bytes, Any] = {}

    def __call__(self, batch: Batch) -> Any:
        """Return the features of a batch, computed once unless memory is short."""
        ids = torch.stack([batch.index, batch.view]).cpu()
        key = ids.numpy().tobytes()
        if key not in self._known:
            features = self._live(batch)
            self._bytes += sum(x.nbytes for x in features.values())
            if self._bytes > _REMEMBERED:
                return features
            self._known[key] = features
        return self._known[key]


def _norm(trainer: Trainer) -> float:
    """Return the norm of all weights that are trained; infinite if one is not finite."""
    weights = [x for x in trainer.distiller.trainable.parameters() if x.requires_grad]
    norm = float(torch.stack([x.detach().double().norm() for x in weights]).norm())
    return norm if math.isfinite(norm) and norm > 0 else math.inf


def _state_bytes(trainer: Trainer) -> int:
    """Return the bytes of the tensors that a saved state of a run holds."""
    trained = [*trainer.distiller.trainable.state_dict().values()]
    moments = [x for state in trainer.optimizer.state.values() for x in state.values()]
    average = [*trainer.ema.state_dict().values()] if trainer.ema else []
    tensors = (x for x in (*trained, *moments, *average) if isinstance(x, Tensor))
    return sum(x.nbytes for x in tensors)


class _Steps:
    """Makes the steps of a trainer, and notes their losses and times."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._began = trainer, time.perf_counter()
        self.losses: list[dict[str, float]] = []
        self.ends: list[float] = []
        self._sums: dict[str, float] = {}

    def make(self) -> str:
        """Make the steps; return why they ended early, if a loss or a weight was not finite."""
        try:
            for _ in self._trainer.fit(self._after):
                self._sums = {}
        except _Enough:
            pass
        except Diverged as error:
            return str(error)
        return ""

    def _after(self) -> None:
        """Note a step; raise `_Enough` after the last one."""
        self.ends.append(time.perf_counter())
        count = self._trainer.position.step
        sums = {name: mean * count for name, mean in self._trainer.mean_losses().items()}
        self.losses.append({name: sums[name] - self._sums.get(name, 0.0) for name in sums})
        self._sums = sums
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
