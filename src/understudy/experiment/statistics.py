"""Did a method beat its control? The difference over seeds, its interval, one honest sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from understudy.errors import RunError

LEVEL = 0.95
"""Confidence of the interval."""
SAME = 1e-9
"""Differences that vary by less than this are one number: what is left is rounding."""

UNITLESS = frozenset({"agreement", "cosine", "cka"})
"""Metrics from 0 to 1; the others that should be high are in percent and differ by points."""

Word = Literal["gain", "no gain", "loss", "one seed"]


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about one arm against the control."""

    difference: float | None
    """Mean of the arm minus mean of the control, in the metric's own unit; None if it diverged."""
    low: float | None
    """Lower end of the 95 % interval of the difference; None with one seed."""
    high: float | None
    """Upper end of the interval."""
    p: float | None
    """Two-sided p-value of the paired t-test."""
    gap_closed: float | None
    """(student − control) / (teacher − control); None where the teacher is not better."""
    word: Word | Literal["diverged"]
    """`gain` and `loss` only where the interval excludes 0; `diverged` without any number."""
    sentence: str
    """The verdict in words."""


def verdict(
    arm: Sequence[float],
    control: Sequence[float],
    teacher: float | None,
    *,
    name: str,
    metric: str,
    higher_is_better: bool = True,
) -> Verdict:
    """Compare an arm with the control, seed by seed, by the paired t-test.

    Args:
        arm: The metric of each seed.
        control: The metric of the control for the same seeds, in the same order.
        teacher: The metric of the teacher, if there is one.
        name: How the sentence calls the arm.
        metric: Name of the metric.
        higher_is_better: False for losses and errors.

    Raises:
        RunError: The seeds do not pair up, or a value is not finite.
    """
    _check(arm, control, name=name, metric=metric)
    differences = [a - c for a, c in zip(arm, control, strict=True)]
    difference = sum(differences) / len(differences)
    low, high, p = _interval(arm, control, differences)
    gap = _gap_closed(difference, _mean(control), teacher, sign=1 if higher_is_better else -1)
    word = _word(low, high, higher_is_better=higher_is_better)
    digits = _digits(difference, low, high)
    unit = " points" if higher_is_better and metric not in UNITLESS else ""
    away = _away(difference, digits, unit)
    if metric != "top1":
        away += f" in {metric}"
    interval = f"(95 % interval {_range(low, high, digits)}, {len(arm)} seeds)"
    sentence = _sentence(name, word, away, interval, gap)
    return Verdict(difference, low, high, p, gap, word, sentence)


def diverged(name: str, reason: str) -> Verdict:
    """The verdict on an arm that did not survive its training; `reason` is a sentence."""
    return Verdict(None, None, None, None, None, "diverged", f"{name} diverged: {reason}")


def _check(arm: Sequence[float], control: Sequence[float], *, name: str, metric: str) -> None:
    if not arm or len(arm) != len(control):
        raise RunError(
            f"A verdict pairs seeds, but {name} has {len(arm)} and the control {len(control)}; "
            "run both with the same seeds."
        )
    if not all(map(math.isfinite, [*arm, *control])):
        raise RunError(
            f"There is no verdict on {name}: {metric} is not finite for some seed; "
            "look at the curves of that run, then lower its learning rate or the method's weight."
        )


def _interval(
    arm: Sequence[float], control: Sequence[float], differences: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Both ends of the interval and the p-value; three times None with one seed."""
    if len(differences) == 1:
        return None, None, None
    if max(differences) - min(differences) < SAME:
        # The t statistic of differences without any spread is x/0: the limit is written down.
        value = differences[0]
        return value, value, float(abs(value) < SAME)
    test = stats.ttest_rel(arm, control)
    interval = test.confidence_interval(LEVEL)
    return float(interval.low), float(interval.high), float(test.pvalue)


def _gap_closed(
    difference: float, control: float, teacher: float | None, *, sign: int
) -> float | None:
    if teacher is None or sign * (teacher - control) < SAME:
        return None
    return difference / (teacher - control)


def _word(low: float | None, high: float | None, *, higher_is_better: bool) -> Word:
    if low is None or high is None:
        return "one seed"
    if low > SAME:
        return "gain" if higher_is_better else "loss"
    if high < -SAME:
        return "loss" if higher_is_better else "gain"
    return "no gain"


def _sentence(name: str, word: Word, away: str, interval: str, gap: float | None) -> str:
    match word:
        case "one seed":
            return f"{name} is {away} with one seed, which proves nothing: run at least three."
        case "no gain":
            return f"No gain could be shown: {name} is {away} {interval}."
        case "loss":
            return f"{name} is significantly worse: {away} {interval}."
        case "gain":
            return f"{name} is {away} {interval}{_closing(gap)}."


def _away(difference: float, digits: int, unit: str) -> str:
    """For example `7.2 points above the control`."""
    size = f"{abs(difference):.{digits}f}"
    if float(size) == 0:
        return "level with the control"
    return f"{size}{unit} {'above' if difference > 0 else 'below'} the control"


def _range(low: float | None, high: float | None, digits: int) -> str:
    ends = (f"{end:.{digits}f}" for end in (low, high) if end is not None)
    return " to ".join(end.replace("-", "−") if float(end) else end.lstrip("-") for end in ends)


def _closing(gap: float | None) -> str:
    if gap is None:
        return ""
    if gap > 1:
        return " and overtakes the teacher"
    return f" and closes {100 * gap:.0f} % of the gap to the teacher"


def _digits(difference: float, low: float | None, high: float | None) -> int:
    """Decimals that keep every number and the interval's width visible: one to four."""
    sizes = [abs(difference)]
    if low is not None and high is not None:
        sizes += [abs(low), abs(high), high - low]
    smallest = min((size for size in sizes if size > SAME), default=1.0)
    return min(max(1, -math.floor(math.log10(smallest))), 4)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
