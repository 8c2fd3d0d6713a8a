"""The columns of the results, said once: title, cell, meaning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from understudy.reporting.results import Arm, Numbers, Results, duration

NAMES: Mapping[str, str] = {
    "top1": "top-1",
    "top5": "top-5",
    "mAP_coco": "mAP (COCO)",
    "voc_AP50": "VOC AP",
    "norm_ratio": "norm ratio",
    "cka": "CKA",
    "kl": "KL",
    "calibration_error": "calibration error",
    "macs": "multiplications",
    "image_ms": "time of one image",
}
"""Metrics that are written differently from their key."""
FIDELITY = {
    "agreement": "share of the images, labels or sure detections on which student and teacher give "
    "the same answer",
    "overlap": "mean intersection over union of the detections on which they agree",
    "cosine": "direction: cosine between the penultimate features of both networks",
    "norm_ratio": "length of the student's feature over the teacher's; 1 is equal",
    "cka": "likeness of the geometry of both feature spaces, from 0 to 1, whatever their size",
    "kl": "distance of the student's probabilities from the teacher's; 0 is equal",
}
RANKING = {
    "AP50": "COCO's average precision at an intersection over union of 0.5, in percent; ",
    "mAP": "mean over the classes of VOC's average precision over all points, in percent; ",
}
"""What metrics that rank students mean, where the name does not say it."""
BESIDE = {
    "AP": "mean of COCO's average precision over intersections of 0.5, 0.55, …, 0.95, in percent",
    "voc_AP50": "VOC's average precision over all points at an intersection of 0.5, in percent",
    "mAP_coco": "COCO's average precision over the ranks of the positives, in percent",
    "CF1": "F1 of the classes' mean precision and recall at a probability of 0.5, in percent",
    "OF1": "F1 of all labels at once at a probability of 0.5, in percent",
}
"""Metrics that have a column beside the one that ranks students."""

LAYERS: Mapping[str, Callable[[float], str]] = {
    "parameters": lambda number: count(int(number)),
    "macs": lambda number: count(int(number)),
    "image_ms": lambda milliseconds: f"{milliseconds:.3g} ms",
}
"""What layers that stay in a student cost, and how each is written."""


@dataclass(frozen=True)
class Column:
    """One column: its title, its cell for an arm (empty where there is nothing), its meaning."""

    title: str
    cell: Callable[[Arm], str]
    meaning: str
    brief: bool = False
    """Shown in the terminal too, where a line has 80 characters."""
    bare: bool = False
    """Without the deviation there."""

    def short(self, arm: Arm) -> str:
        """The cell in a terminal."""
        return self.cell(arm).partition(" ± ")[0] if self.bare else self.cell(arm)


def columns(results: Results) -> list[Column]:
    """The columns in which at least one arm has something to show."""
    listed = [*_verdict(results), *_beside(), *_fidelity(results.metric), *_cost()]
    return [column for column in listed if any(column.cell(arm) for arm in results.arms)]


def name(metric: str) -> str:
    """How a metric is written."""
    return NAMES.get(metric, metric)


def _verdict(results: Results) -> list[Column]:
    digits = 4 if results.judges_fidelity else 2
    return [
        Column(
            name(results.metric),
            lambda arm: _spread(arm.values(results.metric), digits),
            RANKING.get(results.metric, "")
            + "mean over the seeds ± standard deviation between them",
            brief=True,
        ),
        Column(
            "difference",
            lambda arm: _difference(arm, digits),
            "distance from the control and its 95 % interval by the paired t-test over the seeds, "
            "each method by itself: among many methods the best one is flattered",
            brief=True,
        ),
        Column(
            "gap closed",
            lambda arm: _percent((arm.verdict or {}).get("gap_closed")),
            "(student − control) / (teacher − control): 100 % is the teacher",
            brief=True,
        ),
    ]


def _beside() -> list[Column]:
    """What else the task measures."""
    return [
        Column(name(key), _beside_cell(key), meaning, brief=key == "AP", bare=True)
        for key, meaning in BESIDE.items()
    ]


def _beside_cell(key: str) -> Callable[[Arm], str]:
    return lambda arm: _spread(arm.metrics.get(key, []), 2)


def _fidelity(metric: str) -> list[Column]:
    """What is close to the teacher; the metric itself has its column already."""
    return [
        Column(name(key), _fidelity_cell(key), meaning, brief=key == "cosine")
        for key, meaning in FIDELITY.items()
        if key != metric
    ]


def _fidelity_cell(key: str) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        value = mean(arm.fidelity[key]) if arm.fidelity.get(key) else None
        return _percent(value) if key == "agreement" else _number(value)

    return cell


def _cost() -> list[Column]:
    return [
        Column(
            "time",
            _time,
            "training time of one seed; the teacher's, where arms share it through a bank, stands "
            "in its own row, once for all of them",
            brief=True,
        ),
        Column("memory", _memory, "peak memory of training"),
        Column(
            "parameters",
            _parameters,
            "of the student as it is deployed; in brackets what is trained beside it and dropped",
        ),
        Column(
            "kept layers",
            _kept_layers,
            "parameters, multiplications and time of one image, times those of the same student "
            "without the layers that its method leaves in it",
        ),
    ]


def _difference(arm: Arm, digits: int) -> str:
    if arm.verdict is None:
        return ""
    if arm.verdict["word"] == "diverged":
        return "diverged"
    difference, low, high = (arm.verdict[key] for key in ("difference", "low", "high"))
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return signed(difference, digits) + ends.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, typeset with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _spread(values: Numbers, digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %".replace("-", "−")


def _time(arm: Arm) -> str:
    return duration(mean(arm.seconds)) if arm.seconds else ""


def _memory(arm: Arm) -> str:
    if not arm.memory_mb:
        return ""
    peak = max(arm.memory_mb)
    return f"{peak:.0f} MB" if peak < 1000 else f"{peak / 1000:.1f} GB"


def _parameters(arm: Arm) -> str:
    if arm.parameters is None:
        return ""
    beside = (arm.train_parameters or arm.parameters) - arm.parameters
    return count(arm.parameters) + (f" (+{count(beside)})" if beside > 0 else "")


def _kept_layers(arm: Arm) -> str:
    finished = [run.evaluation for run in arm.runs if run.finished]
    found = [evaluation["layers"] for evaluation in finished if evaluation.get("layers")]
    each = [[both["student"][key] / both["plain"][key] for key in LAYERS] for both in found]
    return ", ".join(f"× {mean(ratios):.3g}" for ratios in zip(*each, strict=True))


def count(number: int) -> str:
    """A count with three digits, such as `1.23 M`."""
    if number < 1000:
        return str(number)
    return f"{number / 1e6:.3g} M" if number >= 999_500 else f"{number / 1e3:.3g} k"
