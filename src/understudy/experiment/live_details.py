"""Lines below the bar of a run: its losses, and its metric beside teacher and control. No torch."""

from collections.abc import Mapping
from typing import Any, final

from rich.text import Text


@final
class LiveDetails:
    """What changes while a run is trained, as lines for a terminal; none before anything is known.

    Attributes:
        losses: Loss by name: means over the epoch so far.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self.losses: Mapping[str, float] = {}
        self._metric = ""
        self._scores: dict[str, str] = {}
        self._best: float | None = None

    def take(self, record: Mapping[str, Any], metric: str) -> None:
        """Take the record of an epoch, with what `teacher` and `control` have in it."""
        self.losses = record["losses"]
        value = {**(record["metrics"] or {}), **(record["fidelity"] or {})}.get(metric)
        if value is None:
            return
        self._best = value if self._best is None else max(self._best, value)
        on = "validation images" if record.get("split") == "validation" else "test images"
        self._metric = metric
        self._scores = {
            f"{on}, epoch {record['epoch']}": _number(value),
            "best": _number(self._best),
        }
        for name in ("teacher", "control"):
            if (other := record.get(name)) is not None:
                self._scores[name] = _number(other)

    def __rich__(self) -> Text:
        lines = []
        if self.losses:
            names = sorted(self.losses, key=lambda name: name == "total")
            names = names[:-1] if len(names) == 2 else names  # the total of one loss is that loss
            # A detector's own losses are named `task/…`, and are many.
            parts = [f"{name.removeprefix('task/')} {self.losses[name]:.4f}" for name in names]
            lines.append("  losses  " + "  ".join(parts))
        if self._scores:
            (where, value), *others = self._scores.items()
            beside = "".join(f"   {name} {score}" for name, score in others)
            lines.append(f"  {self._metric}  {value} ({where}){beside}")
        return Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 10 else f"{value:.4f}"
