"""The content of a report: what tables, charts and page are made from."""

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.checks.examine import Examination
from understudy.deployment.speed.latency import Speeds
from understudy.experiment.run_directory import Run
from understudy.experiment.splits import best_value

Numbers = list[float]
METHOD_INKS = 7
"""Number of method colours; after that they repeat with another dash pattern."""


@dataclass(frozen=True)
class Arm:
    """One row of the table: the teacher, the control, a method over its seeds, or a single run."""

    name: str
    role: Literal["teacher", "control", "method", "run"]
    ink: str
    """Name of its colour on the page: `teacher`, `control`, `c0` … `c6`."""
    dash: int = 0
    """Number of the dash pattern: how often the colours repeated before this arm."""
    metrics: dict[str, Numbers] = field(default_factory=dict)
    by_seed: dict[int, float] = field(default_factory=dict)
    """Seed → the metric that ranks students; empty outside of a comparison."""
    per_class: list[list[float | None]] = field(default_factory=list)
    fidelity: dict[str, Numbers] = field(default_factory=dict)
    seconds: Numbers = field(default_factory=list)
    memory_mb: Numbers = field(default_factory=list)
    parameters: int | None = None
    train_parameters: int | None = None
    methods: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)
    beside: str = ""
    """Of several teachers, the name of the one that charts of features compare with."""

    def values(self, metric: str) -> Numbers:
        """Return a metric of the task or of fidelity, one value per seed; empty if not measured."""
        return self.metrics.get(metric) or self.fidelity.get(metric) or []

    def diagnostics(self, key: str) -> list[Any]:
        """Return one entry of diagnostics.json, of each run in which it is not empty."""
        stored = [run.diagnostics for run in self.runs]
        if self.beside:
            stored = [content.get("teachers", {}).get(self.beside, {}) for content in stored]
        return [x for content in stored if (x := content.get(key))]

    def best(self, metric: str) -> Numbers:
        """Return a metric of the best epoch of each run, on the images of the final figures."""
        chosen = [run.evaluation.get("best") for run in self.runs if run.finished]
        return [x for x in (best_value(best, metric) for best in chosen) if x is not None]

    @property
    def word(self) -> str:
        """The verdict in a word, as `statistics.Verdict.word`; empty without a verdict."""
        return str((self.verdict or {}).get("word", ""))

    @property
    def sentence(self) -> str:
        """The verdict in a sentence; empty without a verdict."""
        return str((self.verdict or {}).get("sentence", ""))


TEACHER = Arm("teacher", "teacher", "teacher")
"""A teacher of which nothing is known but what the runs measured."""


@dataclass(frozen=True)
class Results:
    """Everything that one report shows."""

    name: str
    metric: str
    classes: list[str]
    arms: list[Arm]
    facts: dict[str, str]
    """Facts about the runs, in the order of the page: task, digest, machine, …"""
    speeds: dict[str, Speeds] = field(default_factory=dict)
    """Title → size and latency of networks, for the tables of the report."""
    examinations: dict[str, Examination] = field(default_factory=dict)
    """Title → findings of the doctor before training, as far as they were kept."""

    @property
    def teacher(self) -> Arm | None:
        """The only teacher's row; None without one, or with several."""
        rows = [arm for arm in self.arms if arm.role == "teacher"]
        return rows[0] if len(rows) == 1 else None

    @property
    def control(self) -> Arm | None:
        """The control's row; None in a report on single runs."""
        return next((arm for arm in self.arms if arm.role == "control"), None)

    @property
    def judges_fidelity(self) -> bool:
        """True if students are ranked by a measure of fidelity, in [0, 1], as without labels."""
        return not any(self.metric in arm.metrics for arm in self.arms)

    @property
    def judged(self) -> list[Arm]:
        """Arms with a difference from the control, the best first."""
        better = -1 if self.metric == "loss" else 1
        arms = [arm for arm in self.arms if arm.verdict and arm not in self.ended_early]
        return sorted(arms, key=lambda arm: -better * (arm.verdict or {})["difference"])

    def class_name(self, c: int) -> str:
        """Return the name of a class; its number if the names are not known."""
        return self.classes[c] if c < len(self.classes) else f"class {c}"

    @property
    def ended_early(self) -> list[Arm]:
        """Arms whose training diverged or failed."""
        return [arm for arm in self.arms if arm.word in ("diverged", "failed")]


def duration(seconds: float) -> str:
    """Return a duration in a readable unit, such as `8.2 min`."""
    if seconds < 100:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
