"""Metrics, losses and fidelity over the epochs."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from understudy.experiment.run_directory import Run
from understudy.reporting.charts.style import INKS, REFERENCE, Chart, chart, line
from understudy.reporting.columns import name, with_unit
from understudy.reporting.results import Arm, Results

COSINE = (
    "Do the student's features point where the teacher's do? 1: same direction. Arms that do not "
    "compare features, such as the control, stay lower."
)
NORM_RATIO = "Length of the student's features over the teacher's. 1: the same length."
LOSS = (
    "It should fall and flatten. Not comparable between arms: each adds other terms. Where it "
    "jumps or rises, lower the learning rate."
)


@dataclass(frozen=True)
class _Band:
    """Mean, minimum and maximum over the seeds, at the epochs that every seed evaluated."""

    epochs: list[int]
    middle: list[float]
    low: list[float]
    high: list[float]


def training_curves(results: Results) -> list[Chart]:
    """Return every chart for which at least one arm has values."""
    lower = results.metric == "loss"
    metric = name(results.metric)
    teacher = results.teacher.values(results.metric) if results.teacher else []
    group = "fidelity" if results.judges_fidelity else "metrics"
    better = f"{'lower' if lower else 'higher'} is better; dashed: the teacher"
    plain = better.partition(";")[0]
    measured = {
        e.get("split", "test") for arm in results.arms for run in arm.runs for e in run.history
    }
    # The teacher's own value is that on the test images.
    own = teacher[0] if teacher and "validation" not in measured else None
    title = f"{' and '.join(sorted(measured)).capitalize()} {metric}"
    charts = [
        (title, plain if own is None else better, group, results.metric, own),
        ("Cosine to the teacher", COSINE, "fidelity", "cosine", None),
        ("Norm ratio", NORM_RATIO, "fidelity", "norm_ratio", 1.0),
        ("Total training loss", LOSS, "losses", "total", None),
    ]
    labels = {results.metric: with_unit(results.metric), "total": "loss", "norm_ratio": "ratio"}
    drawn = []
    for title, caption, group, key, level in charts:
        bands = [(arm, band(arm.runs, group, key)) for arm in results.arms if arm.runs]
        bands = [(arm, band) for arm, band in bands if band.epochs]
        if bands:
            label = labels.get(key, name(key))
            drawn.append(_chart(title, caption, bands, level, label))
    return drawn


def band(runs: Sequence[Run], group: str, key: str) -> _Band:
    """Return one value over the epochs, over all runs of an arm."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for record in run.history:
            value = (record.get(group) or {}).get(key)
            if value is not None and math.isfinite(value):
                values[record["epoch"]].append(value)
    shared = {epoch: v for epoch, v in sorted(values.items()) if len(v) == len(runs)}
    rows = shared.values()
    return _Band(
        list(shared), [mean(v) for v in rows], [min(v) for v in rows], [max(v) for v in rows]
    )


def _chart(
    title: str,
    caption: str,
    bands: Sequence[tuple[Arm, _Band]],
    level: float | None,
    ylabel: str,
) -> Chart:
    def draw(axes: Any) -> None:
        for arm, band in bands:
            _line(axes, arm, band)
        if level is not None:
            axes.axhline(level, color=INKS["teacher"], **REFERENCE)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        _zoom(axes, [band for _, band in bands], level)

    label = f"{title} over the epochs"
    return chart(title, caption, draw, label=label, xlabel="epoch", ylabel=ylabel)


def _line(axes: Any, arm: Arm, band: _Band) -> None:
    line(axes, arm, band.epochs, band.middle, marker="o" if len(band.epochs) <= 3 else "")
    if len(arm.runs) > 1:
        color = INKS[arm.ink]
        axes.fill_between(band.epochs, band.low, band.high, color=color, alpha=0.16, linewidth=0)


def _zoom(axes: Any, bands: Sequence[_Band], level: float | None) -> None:
    """Fit the axis to what follows the steep first tenth of training."""
    late = [v for b in bands for ends in (b.low, b.high) for v in ends[len(ends) // 10 :]]
    if level is not None:
        late.append(level)
    if min(late) > 0 and max(late) > 20 * min(late):
        axes.set_yscale("log")
        # Powers such as 10³ are set glyph by glyph, which ignores the page's font and its size.
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        if max(late) < 200 * min(late):  # powers of ten alone would be one or two numbers
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        return
    bottom, top = axes.get_ylim()
    margin = 0.05 * (max(late) - min(late))
    if margin == 0:
        return
    axes.set_ylim(max(bottom, min(late) - margin), min(top, max(late) + margin))
