"""Which split of the images is what, and which one chose the best epoch, in words. Loads no torch.

`environment.json` holds them as `splits`: train, validation and test, each with the number of its
`images` and their `origin`, or null where there are none.
"""

from collections.abc import Mapping
from typing import Any

Counts = Mapping[str, Mapping[str, Any] | None]
"""Split → number of images and origin, as in `environment.json`."""


def sentence(counts: Counts, chosen_on: str | None) -> str:
    """Return a line for the terminal: every split with its count, and what chooses `best/`.

    Args:
        counts: The splits of a run.
        chosen_on: Split that chooses the best epoch; None if no epoch is chosen.
    """
    parts = [f"{name} {count(counts.get(name))}" for name in ("train", "validation", "test")]
    return f"Images: {', '.join(parts)}; {_choice(counts, chosen_on)}."


def _choice(counts: Counts, chosen_on: str | None) -> str:
    if chosen_on == "test":
        return "the TEST images choose best/ (training.best), whose numbers they flatter"
    if chosen_on:
        return "the validation images choose best/"
    if counts.get("validation"):
        return "best/ is not kept (training.best)"
    return "without validation images no best/ is kept (data.validation holds some out)"


def count(split: Mapping[str, Any] | None) -> str:
    """Return number and origin of the images of a split, such as `2,500 (fashion: test)`."""
    if not split:
        return "none"
    origin = f" ({split['origin']})" if split.get("origin") else ""
    return f"{split['images']:,}{origin}"


def best_sentence(best: Mapping[str, Any] | None, metric: str) -> str:
    """Say which epoch is the best, which images chose it, and its value on the test images.

    Args:
        best: The entry `best` of an `evaluation.json`; None if no epoch was chosen.
        metric: Metric of an entry that does not name the one that chose the epoch, as of older
            runs. That metric may be another than the one of the verdict.

    Returns:
        A sentence; empty without a best epoch.
    """
    metric = best.get("chosen_by", metric) if best else metric
    value = best_value(best, metric)
    if not best or value is None:
        return ""
    number = f"{value:.2f}" if value >= 10 else f"{value:.4f}"
    if best["chosen_on"] == "test":
        return (
            f"The test images themselves chose the best epoch, {best['epoch']}: its {metric} of "
            f"{number} is higher than it would be on new images."
        )
    if best["split"] == "validation":
        return (
            f"The validation images chose the best epoch, {best['epoch']}: its {metric} of "
            f"{number} is of the same images, since there are no test images."
        )
    return (
        f"The validation images chose the best epoch, {best['epoch']}: its {metric} on the test "
        f"images is {number}."
    )


def best_value(best: Mapping[str, Any] | None, metric: str) -> float | None:
    """Return a metric of the best epoch on the measured split; None if it has none."""
    return {**(best["metrics"] or {}), **(best["fidelity"] or {})}.get(metric) if best else None
