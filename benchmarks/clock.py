"""The clock: variants that take turns in one process, and ratios of what their turns cost.

Time is processor time of this process with one thread, so that the neighbours on a machine change
little. What they still change, by a shared cache or a lower frequency, is the same for variants
that take turns: a ratio is the median over the rounds of the ratio within a round.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from statistics import quantiles
from typing import TypedDict

WARM_UP = 2
"""Turns of every variant that are not counted: they allocate, and plan convolutions."""

SELDOM = 3
"""Expensive variants take a turn in every so many rounds."""

Times = dict[str, dict[int, float]]
"""Variant → round → seconds of its turn."""


class Figure(TypedDict):
    """A median with its quartiles."""

    low: float
    median: float
    high: float


def interleaved(
    variants: Mapping[str, Iterator[object]], rounds: int, *, seldom: Collection[str] = ()
) -> Times:
    """Seconds of every counted turn, the variants in turn, round after round."""
    times: Times = {name: {} for name in variants}
    for number in range(-WARM_UP, rounds):
        for name, turn in variants.items():
            if number > 0 and name in seldom and number % SELDOM:
                continue
            started = time.process_time()
            next(turn)
            times[name][number] = time.process_time() - started
    return {name: {n: t for n, t in turns.items() if n >= 0} for name, turns in times.items()}


def milliseconds(turns: Mapping[int, float]) -> Figure:
    """Of one variant's turn."""
    return figure([1e3 * seconds for seconds in turns.values()])


def ratio(dividend: Mapping[int, float], divisor: Mapping[int, float]) -> Figure:
    """Of two variants' turns, over the rounds in which both had one."""
    return figure([dividend[n] / divisor[n] for n in dividend.keys() & divisor.keys()])


def total(*variants: Mapping[int, float]) -> dict[int, float]:
    """Turns of several variants one after another, in the rounds in which all had one."""
    common = set(variants[0]).intersection(*variants[1:])
    return {number: sum(turns[number] for turns in variants) for number in common}


def times(factor: float, turns: Mapping[int, float]) -> dict[int, float]:
    """Turns that cost `factor` times as much."""
    return {number: factor * seconds for number, seconds in turns.items()}


def figure(values: list[float]) -> Figure:
    """The quartiles of some values; a single value is all three."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if values[1:] else values * 3
    return Figure(low=_rounded(low), median=_rounded(middle), high=_rounded(high))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
