"""What a report shows: the record that tables, curves and page are made from."""

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.experiment.run_directory import Run

Numbers = list[float]
METHOD_INKS = 7
"""Colours for methods before they repeat with another dash pattern."""


@dataclass(frozen=True)
class Arm:
    """One row of the table: the teacher, the control, a method over its seeds, or a lone run."""

    name: str
    role: Literal["teacher", "control", "method", "run"]
    ink: str
    """Name of its colour in the page: `teacher`, `control`, `c0` … `c6`."""
    dash: int = 0
    """How often the colours were used up before this arm."""
    metrics: dict[str, Numbers] = field(default_factory=dict)
    per_class: list[list[float | None]] = field(default_factory=list)
    fidelity: dict[str, Numbers] = field(default_factory=dict)
    seconds: Numbers = field(default_factory=list)
    memory_mb: Numbers = field(default_factory=list)
    parameters: int | None = None
    train_parameters: int | None = None
    methods: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)

    def values(self, metric: str) -> Numbers:
        """A metric of the task or of fidelity, one value for each seed; empty if not measured."""
        return self.metrics.get(metric) or self.fidelity.get(metric) or []


@dataclass(frozen=True)
class Results:
    """Everything one report shows."""

    name: str
    metric: str
    classes: list[str]
    arms: list[Arm]
    facts: dict[str, str]
    """What was run, in the order shown: task, digest, machine, …"""

    @property
    def teacher(self) -> Arm | None:
        """The teacher's row, if there is a teacher."""
        return next((arm for arm in self.arms if arm.role == "teacher"), None)

    @property
    def control(self) -> Arm | None:
        """The control's row; lone runs have none."""
        return next((arm for arm in self.arms if arm.role == "control"), None)

    @property
    def judges_fidelity(self) -> bool:
        """Whether the metric is one of fidelity, in [0, 1], as it is without labels."""
        return not any(self.metric in arm.metrics for arm in self.arms)

    @property
    def judged(self) -> list[Arm]:
        """Arms with a verdict in numbers, the best first."""
        better = -1 if self.metric == "loss" else 1
        arms = [arm for arm in self.arms if arm.verdict and arm not in self.diverged]
        return sorted(arms, key=lambda arm: -better * (arm.verdict or {})["difference"])

    @property
    def diverged(self) -> list[Arm]:
        """Arms that did not survive their training."""
        return [arm for arm in self.arms if (arm.verdict or {}).get("word") == "diverged"]


def duration(seconds: float) -> str:
    """Seconds in the unit a reader would choose, such as `8.2 min`."""
    if seconds < 100:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
