"""Time variants that take turns in one process, and compute ratios of their times.

Times are processor time of this process with one thread, which other processes on the machine
hardly change. What they still change, through shared caches or a lower clock rate, affects all
variants of a round alike: a ratio is the median over the rounds of the ratio within a round.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from statistics import quantiles
from typing import TypedDict

WARM_UP = 2
"""Turns of each variant that are not counted: they allocate memory and plan convolutions."""

SELDOM = 3
"""Expensive variants take one turn in so many rounds."""

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
    """Return the seconds of every counted turn; in each round, the variants take turns."""
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
    """Return the milliseconds of one variant's turns."""
    return figure([1e3 * seconds for seconds in turns.values()])


def ratio(dividend: Mapping[int, float], divisor: Mapping[int, float]) -> Figure:
    """Return the ratio of two variants' turns, over the rounds in which both had one."""
    return figure([dividend[n] / divisor[n] for n in dividend.keys() & divisor.keys()])


def total(*variants: Mapping[int, float]) -> dict[int, float]:
    """Return the summed seconds of several variants, in the rounds in which all had a turn."""
    common = set(variants[0]).intersection(*variants[1:])
    return {number: sum(turns[number] for turns in variants) for number in common}


def times(factor: float, turns: Mapping[int, float]) -> dict[int, float]:
    """Return the seconds of the turns, multiplied by `factor`."""
    return {number: factor * seconds for number, seconds in turns.items()}


def figure(values: list[float]) -> Figure:
    """Return the quartiles of some values; a single value is all three."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if values[1:] else values * 3
    return Figure(low=_rounded(low), median=_rounded(middle), high=_rounded(high))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
