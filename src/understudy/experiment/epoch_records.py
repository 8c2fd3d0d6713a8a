"""Entries of an epoch's record and of a run's summary, from evaluations and earlier records."""

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.tasks import Evaluation


def measures(evaluation: Evaluation | None, prefix: str = "") -> dict[str, Any]:
    """Return metrics and fidelity as entries of an epoch's record; None where not measured."""
    return {
        f"{prefix}metrics": evaluation.metrics if evaluation else None,
        f"{prefix}fidelity": evaluation.fidelity if evaluation else None,
    }


def best_epoch(
    records: Sequence[Mapping[str, Any]], chosen_on: str | None, chosen_by: str, split: str
) -> dict[str, Any] | None:
    """Return the best epoch: what chose it, and its measures on the split of the final ones."""
    chosen = [record for record in records if record.get("best")]
    if not chosen or chosen_on is None:
        return None
    record = chosen[-1]
    return {
        "epoch": record["epoch"],
        "chosen_on": chosen_on,
        "chosen_by": chosen_by,
        "split": split,
        "metrics": record["final_metrics"],
        "fidelity": record["final_fidelity"],
    }


def total_teacher_seconds(*parts: Mapping[str, Any]) -> float | None:
    """Return the seconds that filling the bank took in all parts of a run; None without a bank."""
    seconds: list[Any] = [part.get("teacher_seconds") for part in parts]
    return None if None in seconds else float(sum(seconds))


def flat_numbers(record: dict[str, Any]) -> dict[str, float]:
    """Return name → number of a record, nested names joined by a slash, as trackers take them."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        numbers = {k: v for k, v in inner.items() if isinstance(v, int | float)}
        flat |= {f"{key}/{k}".rstrip("/"): v for k, v in numbers.items()}
    return flat


def of_teachers(summaries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of the only teacher, and those of teachers with names."""
    only = next(iter(summaries.values())) if len(summaries) == 1 else None
    named = {name: summary for name, summary in summaries.items() if name}
    return {"teacher": only} | ({"teachers": named} if named else {})
