"""What a trial tries: the published values first, then what Optuna's sampler suggests."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from understudy.config.extras import installation
from understudy.errors import UnderstudyError
from understudy.tuning.space import Candidate, Knob

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

_RANDOM = 8
"""Trials that are drawn at random before the sampler learns from them, the published ones among."""

Scored = tuple[str, Mapping[str, float], float | None]
"""Candidate and values of an earlier trial, and its score; None if it failed."""


@final
class Suggestions:
    """Suggests trials, each a pure function of the seed and of the trials before it.

    The sampler has no state to save: it is made anew for every trial, from the scores of all trials
    before it at the first rung, so that a search that was interrupted goes on as if it was not.

    Args:
        candidates: Methods to choose from.
        seed: Seed of the sampler.

    Raises:
        UnderstudyError: Optuna is not installed.
    """

    def __init__(self, candidates: Sequence[Candidate], *, seed: int) -> None:
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise UnderstudyError(
                f"A search needs Optuna, which is not installed: {installation('tune')}."
            ) from error
        self._candidates, self._seed = {each.name: each for each in candidates}, seed

    def next(self, before: Sequence[Scored]) -> tuple[str, dict[str, float], bool]:
        """Return candidate and values of the next trial, and whether they are the published ones.

        Args:
            before: All trials so far, in their order.
        """
        if len(before) < len(self._candidates):
            name = list(self._candidates)[len(before)]
            return name, _published(self._candidates[name]), True
        with _quiet():
            trial = self._study(before).ask()
            name = str(trial.suggest_categorical("method", list(self._candidates)))
            knobs = self._candidates[name].knobs
            values = {x.path: _within(x, x.draw(trial, _named(name, x))) for x in knobs}
        return name, values, values == _published(self._candidates[name])

    def _study(self, before: Sequence[Scored]) -> "Study":
        import optuna
        from optuna.trial import TrialState, create_trial

        # Large and odd, so that the seeds of two searches do not meet.
        seed = (self._seed * 100_003 + len(before)) % 2**32
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for name, values, score in before:
            failed = score is None or not math.isfinite(score)
            study.add_trial(
                create_trial(
                    state=TrialState.FAIL if failed else TrialState.COMPLETE,
                    value=None if failed else score,
                    params={"method": name} | self._parameters(name, values),
                    distributions=self._distributions(name),
                )
            )
        return study

    def _parameters(self, name: str, values: Mapping[str, float]) -> dict[str, float]:
        return {_named(name, x): values[x.path] for x in self._candidates[name].knobs}

    def _distributions(self, name: str) -> "dict[str, BaseDistribution]":
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        return {"method": CategoricalDistribution(list(self._candidates))} | {
            _named(name, x): IntDistribution(int(x.low), int(x.high), log=x.log)
            if x.whole
            else FloatDistribution(x.low, x.high, log=x.log)
            for x in self._candidates[name].knobs
        }


def _published(candidate: Candidate) -> dict[str, float]:
    return {knob.path: knob.published for knob in candidate.knobs}


def _within(knob: Knob, value: float) -> float:
    """Return a value that rounding may have moved out of its range, within it."""
    return min(max(value, knob.low), knob.high)


def _named(candidate: str, knob: Knob) -> str:
    """Return the name of a number for Optuna, which is one of a candidate alone."""
    return f"{candidate}/{knob.path}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from printing a line for every study and trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
