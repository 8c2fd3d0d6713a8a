"""Verdicts: an arm against its control, over seeds and test images, in numbers and in words.

The difference of an arm and the control varies with two things, the seed of training and the choice
of test images. Both are measured on the same seeds and the same images, so that

    D       = mean of d_s,   d_s = metric of the arm − metric of the control, for seed s of S
    V_seed  = variance of d_s over the seeds, divided by S
    V_image = variance of D over the choice of test images (`ImageSpread`)
    D ± √( t² V_seed + z² V_image )

t is the quantile of Student's distribution with S − 1 degrees of freedom, z that of the normal one.
This is the interval of Banerjee, "Approximate confidence interval for linear functions of means of
k populations when the population variances are not equal", Sankhyā 22, 1960: it holds at least its
level whatever the ratio of both variances. `docs/verdict.md` has the error rates, by simulation.
The p-value is the level at which the interval touches 0; over several methods it is corrected by
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, stats

from understudy.errors import RunError

LEVEL = 0.95
"""Confidence of the interval."""
SEEDS = 3
"""Fewest seeds for a verdict."""
SAME = 1e-9
"""Differences smaller than this are rounding."""

UNITLESS = frozenset({"agreement", "cosine", "cka", "knn_agreement"})
"""Metrics from 0 to 1; the others that should be high are in percent and differ by points."""

Word = Literal["gain", "no gain", "loss", "too few seeds", "diverged", "failed"]


@dataclass(frozen=True)
class ImageSpread:
    """How far the difference of an arm and the control varies with the choice of test images.

    Args:
        variance: V_image, in the square of the metric's unit.
        images: Number of test images.
        how: `paired` over the images, by `resampled` test sets, or `unpaired`, an upper bound where
            the outcome of single images was not kept.
    """

    variance: float
    images: int
    how: Literal["paired", "resampled", "unpaired"]

    @classmethod
    def paired(
        cls, arm: Bool[np.ndarray, "seeds images"], control: Bool[np.ndarray, "seeds images"]
    ) -> "ImageSpread":
        """Return the spread of a difference of accuracies in percent, from every image's outcome.

        One imagined image that the arm wins and one that it loses are added, as Agresti & Min
        ("Simple improved confidence intervals for comparing matched proportions", Statistics in
        Medicine 24, 2005) do: the normal quantile would be too small for a handful of differences.
        """
        change = (arm.astype(np.float64) - control).mean(axis=0)
        count = len(change)
        variance = (np.square(change).sum() + 2 - count * change.mean() ** 2) / count**2
        return cls(100**2 * float(variance), count, "paired")

    @classmethod
    def resampled(
        cls,
        arm: Float[np.ndarray, "seeds resamples"],
        control: Float[np.ndarray, "seeds resamples"],
        *,
        images: int,
    ) -> "ImageSpread":
        """Return the spread of any metric, from its values on resampled test sets.

        Column r of both holds the metric on the same resample of the test images.
        """
        difference = (arm - control).mean(axis=0)
        return cls(float(difference.var(ddof=1)), images, "resampled")

    @classmethod
    def unpaired(cls, arm: float, control: float, *, images: int) -> "ImageSpread":
        """Return an upper bound for two accuracies in percent, which are known as numbers alone.

        It is reached by networks whose mistakes have nothing in common; others differ less.
        """
        variance = sum(p * (100 - p) for p in (arm, control)) / images
        return cls(variance, images, "unpaired")


@dataclass(frozen=True)
class Verdict:
    """One arm against the control, over seeds and test images."""

    difference: float | None
    """Mean of the arm minus mean of the control, in the metric's own unit; None if it diverged."""
    low: float | None
    """Lower end of the 95 % interval of the difference; None with one seed."""
    high: float | None
    """Upper end of the interval."""
    p: float | None
    """Two-sided p-value, for this arm alone."""
    gap_closed: float | None
    """(student − control) / (teacher − control); None where the teacher is not better."""
    word: Word
    """`gain` and `loss` only where `p_holm` is below 0.05; `diverged` without any number."""
    sentence: str
    """The verdict in words."""
    p_holm: float | None = None
    """The p-value corrected for the number of methods in the comparison."""
    seeds: int = 0
    """How many seeds the difference is a mean over."""
    images: int | None = None
    """How many test images it was measured on; None if they could not be taken into account."""
    seed_error: float | None = None
    """√V_seed, the standard error that the seeds give."""
    image_error: float | None = None
    """√V_image, the standard error that the choice of test images gives."""


@dataclass(frozen=True)
class Scores:
    """The metric of one arm for every seed, and the spread that the test images give it."""

    values: Sequence[float]
    images: ImageSpread | None = None


def verdict(
    arm: Sequence[float],
    control: Sequence[float],
    teacher: float | None,
    *,
    name: str,
    metric: str,
    images: ImageSpread | None = None,
    higher_is_better: bool = True,
) -> Verdict:
    """Compare one arm with the control.

    Args:
        arm: The metric of each seed.
        control: The metric of the control for the same seeds, in the same order.
        teacher: The metric of the teacher, if there is one.
        name: How the sentence calls the arm.
        metric: Name of the metric.
        images: Spread that the test images give; without it the interval is over the seeds alone,
            which the sentence says, and there is none where all seeds differ by the same number.
        higher_is_better: False for losses and errors.

    Raises:
        RunError: The seeds do not pair up, or a value is not finite.
    """
    arms = {name: Scores(arm, images)}
    return verdicts(arms, control, teacher, metric=metric, higher_is_better=higher_is_better)[name]


def verdicts(
    arms: Mapping[str, Scores],
    control: Sequence[float],
    teacher: float | None,
    *,
    metric: str,
    higher_is_better: bool = True,
) -> dict[str, Verdict]:
    """Compare several arms with the control, their p-values corrected by Holm.

    Args:
        arms: Name → its metric.
        control: As for `verdict`.
        teacher: As for `verdict`.
        metric: Name of the metric.
        higher_is_better: False for losses and errors.

    Raises:
        RunError: As for `verdict`.
    """
    measured = {name: _measured(name, arm, control, metric=metric) for name, arm in arms.items()}
    corrected = holm({name: one.p for name, one in measured.items() if one.p is not None})
    sign = 1 if higher_is_better else -1
    judged = {}
    for name, one in measured.items():
        assert one.difference is not None  # only an arm that diverged has none
        gap = _gap_closed(one.difference, _mean(control), teacher, sign=sign)
        one = replace(one, p_holm=corrected.get(name), gap_closed=gap)
        one = replace(one, word=_word(one, sign=sign))
        points = higher_is_better and metric not in UNITLESS
        unit = " points" if points else ""
        sentence = _sentence(name, one, metric=metric, unit=unit, methods=len(corrected))
        judged[name] = replace(one, sentence=sentence)
    return judged


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct m p-values for their number: the smallest times m, the next times m − 1, and on."""
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected


def ended_early(name: str, word: Literal["diverged", "failed"], reason: str) -> Verdict:
    """Return the verdict on an arm of which a run has no result; `reason` is a sentence."""
    return Verdict(None, None, None, None, None, word, f"{name} {word}: {reason}")


def _check(arm: Sequence[float], control: Sequence[float], *, name: str, metric: str) -> None:
    for who, values in ((name, arm), ("the control", control)):
        others = [x for x in values if not _is_number(x)]
        if others:
            raise RunError(
                f"There is no verdict on {name}: a verdict compares numbers, but {metric} of {who} "
                f"holds {others[0]!r}; give one number for each seed."
            )
    if not len(arm) or len(arm) != len(control):
        raise RunError(
            f"A verdict pairs seeds, but {name} has {len(arm)} and the control {len(control)}; "
            "run both with the same seeds."
        )
    if not all(map(math.isfinite, [*arm, *control])):
        raise RunError(
            f"There is no verdict on {name}: {metric} is not finite for some seed; "
            "look at the curves of that run, then lower its learning rate or the method's weight."
        )


def _is_number(value: object) -> bool:
    try:
        math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a tensor of several values gives the second
        return False
    return True


def _measured(name: str, arm: Scores, control: Sequence[float], *, metric: str) -> Verdict:
    """Return the numbers of a verdict, for one arm alone."""
    _check(arm.values, control, name=name, metric=metric)
    differences = np.subtract(arm.values, control)
    seeds, difference = len(differences), float(differences.mean())
    images = arm.images
    seed_variance = float(differences.var(ddof=1)) / seeds if seeds > 1 else None
    image_variance = images.variance if images else 0.0
    low = high = p = None
    if seed_variance is not None and seed_variance + image_variance > SAME**2:
        half = margin(1 - LEVEL, seeds, seed_variance, image_variance)
        low, high = difference - half, difference + half
        p = _p_value(abs(difference), seeds, seed_variance, image_variance)
    return Verdict(
        difference,
        low,
        high,
        p,
        gap_closed=None,
        word="no gain",
        sentence="",
        seeds=seeds,
        images=images.images if images else None,
        seed_error=None if seed_variance is None else math.sqrt(seed_variance),
        image_error=math.sqrt(image_variance) if images else None,
    )


def margin(level: float, seeds: int, seed_variance: float, image_variance: float) -> float:
    """Return half the width of the interval that misses the difference with probability `level`."""
    t, z = _quantiles(level, seeds)
    return float(np.sqrt(t**2 * seed_variance + z**2 * image_variance))


@lru_cache
def _quantiles(level: float, seeds: int) -> tuple[float, float]:
    """Return two-sided quantiles: Student's for the seeds, the normal one for the images."""
    return float(stats.t.isf(level / 2, seeds - 1)), float(stats.norm.isf(level / 2))


def _p_value(size: float, seeds: int, seed_variance: float, image_variance: float) -> float:
    """Return the level at which the interval around a difference of this size touches 0."""
    smallest = 1e-12

    def excess(log_level: float) -> float:
        return margin(math.exp(log_level), seeds, seed_variance, image_variance) - size

    if size < SAME or excess(0.0) >= 0:
        return 1.0
    if excess(math.log(smallest)) <= 0:
        return smallest
    return math.exp(optimize.brentq(excess, math.log(smallest), 0.0))


def _gap_closed(
    difference: float, control: float, teacher: float | None, *, sign: int
) -> float | None:
    if teacher is None or sign * (teacher - control) < SAME:
        return None
    return difference / (teacher - control)


def _word(measured: Verdict, *, sign: int) -> Word:
    if measured.seeds < SEEDS:
        return "too few seeds"
    if measured.p_holm is None or measured.p_holm >= 1 - LEVEL or measured.difference is None:
        return "no gain"
    return "gain" if sign * measured.difference > 0 else "loss"


def _sentence(name: str, judged: Verdict, *, metric: str, unit: str, methods: int) -> str:
    assert judged.difference is not None
    digits = _digits(judged.difference, judged.low, judged.high)
    away = _away(judged.difference, digits, unit) + _in_words(metric)
    if judged.word == "too few seeds":
        return _too_few(name, judged, away, digits)
    beside = f"({_evidence(judged, digits)})"
    match judged.word:
        case "gain":
            return f"{name} is {away} {beside}{_closing(judged.gap_closed)}."
        case "loss":
            return f"{name} is significantly worse: {away} {beside}."
        case _:
            return (
                f"No gain could be shown: {name} is {away} {beside}{_corrected(judged, methods)}."
            )


def _in_words(metric: str) -> str:
    """Return the metric in words, such as ` in k-NN`; empty for top-1 accuracy, the usual one."""
    return (
        "" if metric == "top1" else f" in {metric.replace('knn_', 'k-NN ').replace('knn', 'k-NN')}"
    )


def _too_few(name: str, judged: Verdict, away: str, digits: int) -> str:
    if judged.low is None:
        seeds = "one seed" if judged.seeds == 1 else f"{judged.seeds} seeds"
        return f"{name} is {away} with {seeds}, which proves nothing: run at least three."
    evidence = _evidence(judged, digits)
    return f"{name} is {away} ({evidence}), too few for a verdict: run at least three seeds."


def _evidence(judged: Verdict, digits: int) -> str:
    """Return what a verdict rests on, such as `95 % interval 7.0 to 7.4, 3 seeds × 372 images`."""
    measured = f"{judged.seeds} seeds"
    measured += f" × {judged.images:,} images" if judged.images else ", test images left out"
    if judged.low is None:
        return f"the same for all seeds, which gives no interval; {measured}"
    return f"95 % interval {_range(judged.low, judged.high, digits)}, {measured}"


def _corrected(judged: Verdict, methods: int) -> str:
    """Say so where the arm alone would have been a gain or a loss."""
    if judged.p is None or judged.p_holm is None or judged.p >= 1 - LEVEL:
        return ""
    return f"; p = {judged.p:.3f} alone, {judged.p_holm:.2f} corrected for {methods} methods"


def _away(difference: float, digits: int, unit: str) -> str:
    """Return a difference in words, such as `7.2 points above the control`."""
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
    """Return the decimals, one to four, that keep all numbers and the interval's width visible."""
    sizes = [abs(difference)]
    if low is not None and high is not None:
        sizes += [abs(low), abs(high), high - low]
    smallest = min((size for size in sizes if size > SAME), default=1.0)
    return min(max(1, -math.floor(math.log10(smallest))), 4)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
