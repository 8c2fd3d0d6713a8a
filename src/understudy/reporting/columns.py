"""The columns of the results table: title, cell, meaning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean

from understudy.experiment.plain_table import count, difference, percent, spread
from understudy.reporting.results import Arm, Results, duration


@dataclass(frozen=True)
class Metric:
    """How a metric is written, what it means, and what its value for one class is called."""

    name: str
    meaning: str = ""
    per_class: str = "Accuracy"


METRICS: Mapping[str, Metric] = {
    "top1": Metric("top-1", "share of images whose class has the highest score, in percent"),
    "top5": Metric("top-5"),
    "knn": Metric(
        "k-NN",
        "accuracy of weighted k-NN on penultimate features, each test image by its 20 nearest "
        "others, in percent",
    ),
    "linear": Metric(
        "linear probe",
        "accuracy of a linear classifier on penultimate features, of each fifth of the test images "
        "by the others, in percent",
    ),
    "knn_agreement": Metric(
        "k-NN agreement",
        "share of the 20 nearest others of a test image that are the same for student and teacher",
    ),
    "mAP": Metric(
        "mAP",
        "mean over the classes of VOC's average precision over all points, in percent",
        per_class="Average precision",
    ),
    "mAP_coco": Metric(
        "mAP (COCO)",
        "mean over the classes of the average precision at the rank of each positive, as is usual "
        "for COCO, in percent",
    ),
    "CF1": Metric(
        "CF1", "F1 of the class means of precision and recall at a probability of 0.5, in percent"
    ),
    "OF1": Metric("OF1", "F1 over all labels together at a probability of 0.5, in percent"),
    "AP50": Metric(
        "AP50", "COCO's average precision at an IoU of 0.5, in percent", per_class="AP50"
    ),
    "AP": Metric(
        "AP", "COCO's average precision, mean over IoUs of 0.5, 0.55, …, 0.95, in percent"
    ),
    "voc_AP50": Metric(
        "VOC AP", "VOC's average precision over all points at an IoU of 0.5, in percent"
    ),
    "agreement": Metric(
        "agreement",
        "share of images, labels or confident detections for which student and teacher give the "
        "same answer",
    ),
    "overlap": Metric("overlap", "mean IoU of the detections on which student and teacher agree"),
    "cosine": Metric("cosine", "direction: cosine between both penultimate features"),
    "norm_ratio": Metric(
        "norm ratio", "norm of the student's penultimate feature over the teacher's; 1 if equal"
    ),
    "cka": Metric("CKA", "similarity of both feature spaces, from 0 to 1, for any dimensions"),
    "kl": Metric(
        "KL", "divergence of the student's probabilities from the teacher's; 0 if they are equal"
    ),
    "calibration_error": Metric("calibration error"),
    "macs": Metric("multiplications"),
    "image_ms": Metric("time per image"),
}
"""Metrics that are not written as their key, or that have a column."""
BESIDE = ("linear", "AP", "voc_AP50", "mAP_coco", "CF1", "OF1")
"""Metrics of the task with a column of their own, next to the one that ranks students."""
FIDELITY = ("agreement", "overlap", "knn_agreement", "cosine", "norm_ratio", "cka", "kl")

LAYERS: Mapping[str, Callable[[float], str]] = {
    "parameters": lambda number: count(int(number)),
    "macs": lambda number: count(int(number)),
    "image_ms": lambda milliseconds: f"{milliseconds:.3g} ms",
}
"""Cost of the layers that a method leaves in the student → how the number is written."""


@dataclass(frozen=True)
class Column:
    """One column: its title, its cell for an arm (empty if not measured), and its meaning."""

    title: str
    cell: Callable[[Arm], str]
    meaning: str
    brief: bool = False
    """True if it is also in the terminal's table, whose lines have 80 characters."""
    short_title: str = ""
    """Title in the terminal's table, if it is another one."""
    until: str = ""
    """Text from which on the terminal's table leaves the cell out, such as ` ± `."""

    def short(self, arm: Arm) -> str:
        """Return the cell of the terminal's table."""
        return self.cell(arm).partition(self.until)[0] if self.until else self.cell(arm)


def columns(results: Results) -> list[Column]:
    """Return the columns for which at least one arm has a value."""
    best = _best_epoch(results)
    candidates = [*_verdict(results), best, *_beside(), *_fidelity(results.metric)]
    candidates += _cost(results)
    return [column for column in candidates if any(column.cell(arm) for arm in results.arms)]


def name(metric: str) -> str:
    """Return how a metric is written."""
    return METRICS[metric].name if metric in METRICS else metric


def with_unit(metric: str) -> str:
    """Return how a metric is written, with its unit if it is in percent."""
    percent = metric in METRICS and METRICS[metric].meaning.endswith("in percent")
    return f"{name(metric)} in percent" if percent else name(metric)


def _verdict(results: Results) -> list[Column]:
    digits = 4 if results.judges_fidelity else 2
    meaning = METRICS[results.metric].meaning if results.metric in METRICS else ""
    return [
        Column(
            name(results.metric),
            lambda arm: spread(arm.values(results.metric), digits),
            f"{meaning}; mean ± standard deviation over the seeds".removeprefix("; "),
            brief=True,
        ),
        Column(
            "difference",
            lambda arm: difference(arm.verdict, digits),
            "mean difference from the control and its 95 % interval over seeds and test images, of "
            "each method alone; the verdict in words corrects for their number (Holm)",
            brief=True,
        ),
        Column(
            "gap closed",
            lambda arm: percent((arm.verdict or {}).get("gap_closed")),
            "(student − control) / (teacher − control); 100 % is the teacher",
            brief=True,
        ),
    ]


def _best_epoch(results: Results) -> Column:
    digits = 4 if results.judges_fidelity else 2
    return Column(
        f"{name(results.metric)}, best epoch",
        lambda arm: spread(arm.best(results.metric), digits),
        "the same of the student in best/, whose epoch the validation images chose, or the test "
        "images where training.best says so; the verdict is about the last epoch",
    )


def _beside() -> list[Column]:
    return [
        Column(name(key), _beside_cell(key), METRICS[key].meaning, brief=key == "AP", until=" ± ")
        for key in BESIDE
    ]


def _beside_cell(key: str) -> Callable[[Arm], str]:
    return lambda arm: spread(arm.metrics.get(key, []), 2)


def _fidelity(metric: str) -> list[Column]:
    """Return the columns of fidelity, but for a metric that has a column already."""
    return [
        Column(name(key), _fidelity_cell(key), METRICS[key].meaning, brief=key == "cosine")
        for key in FIDELITY
        if key != metric
    ]


def _fidelity_cell(key: str) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        value = mean(arm.fidelity[key]) if arm.fidelity.get(key) else None
        return percent(value) if key == "agreement" else _number(value)

    return cell


def _cost(results: Results) -> list[Column]:
    return [
        Column(
            "time per run",
            _time,
            _time_meaning(results),
            brief=True,
            short_title="time",
            until=", once",
        ),
        Column("memory", _memory, "peak memory during training"),
        Column(
            "parameters",
            _parameters,
            "of the deployed student; in brackets those that are trained with it and then dropped",
        ),
        Column(
            "kept layers",
            _kept_layers,
            "parameters, multiplications and time per image of a student with the layers that its "
            "method adds, as multiples of the student without them",
        ),
    ]


def _time_meaning(results: Results) -> str:
    teacher = results.teacher
    if results.control is None:
        return "training and evaluations of the run, with the passes it made through its teacher"
    if any(arm.role == "teacher" for arm in results.arms) and teacher is None:
        return (
            "mean over the seeds of one run, from its preparation to its last evaluation; without "
            "the time in which teachers filled a bank"
        )
    if teacher is None or not teacher.seconds:
        return (
            "mean over the seeds of one run, from its preparation to its last evaluation; the "
            "teacher's passes over the images are part of it"
        )
    return (
        "mean over the seeds of one run, from its preparation to its last evaluation, without the "
        "teacher's passes over the images: these were made once, or once for each seed, and kept "
        "in the bank, and the teacher's row has their time; all together: the time of all runs in "
        "the run details"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _time(arm: Arm) -> str:
    if not arm.seconds:
        return ""
    return duration(mean(arm.seconds)) + (", once" if arm.role == "teacher" else "")


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
    costs = [evaluation["layers"] for evaluation in finished if evaluation.get("layers")]
    each = [[cost["student"][key] / cost["plain"][key] for key in LAYERS] for cost in costs]
    return ", ".join(f"× {mean(ratios):.3g}" for ratios in zip(*each, strict=True))
