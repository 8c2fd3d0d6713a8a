"""Collect the result of a reproduction from the directories of its runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from statistics import mean
from typing import Any

from understudy import tasks
from understudy.experiment.run_directory import Run
from understudy.experiment.run_time import in_words
from understudy.experiment.splits import best_value
from understudy.reproduction.order import Entry, Order
from understudy.reproduction.published import Published, changes, judged, other_protocol, protocol
from understudy.reproduction.result import Reproduction
from understudy.reproduction.rows import Row, Settings, Stage
from understudy.training import hardware


def result_of(
    table: str, settings: Settings, seeds: Sequence[int], order: Order, *, timed: bool
) -> Reproduction:
    """Return what the directories hold at present.

    Args:
        table: Name or path of the table.
        settings: How its rows are run.
        seeds: All seeds that were asked for.
        order: Its runs.
        timed: Predict the time of rows that are not finished.
    """
    by_row: dict[str, list[Entry]] = {}
    for entry in order.entries:
        by_row.setdefault(entry.row.name, []).append(entry)
    finished = [stage.run for stage in order.stages() if stage.run.finished]
    first = order.entries[0].row.recipe
    return Reproduction(
        table=table,
        metric=tasks.find(first.task, first.training).headline,
        epochs_scale=settings.share,
        overrides=dict(settings.overrides),
        seeds=list(seeds),
        machine=hardware.describe()["machine"],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(run.seconds for run in finished),
        rows=[_row(entries, order, timed=timed) for entries in by_row.values()],
        teachers=list(_teachers(order)),
        path=order.entries[0].row.folder.parent,
    )


def _row(entries: Sequence[Entry], order: Order, *, timed: bool) -> dict[str, Any]:
    row = entries[0].row
    published = Published.of(row.about, distilled=bool(row.recipe.methods))
    runs = [entry.stage.run for entry in entries if entry.stage.run.finished]
    metric = tasks.find(row.recipe.task, row.recipe.training).headline
    last = [_value(run.evaluation, metric) for run in runs]
    best = [best_value(run.evaluation.get("best"), metric) for run in runs]
    use_best = published.epoch == "best" and None not in best
    scores = [x for x in (best if use_best else last) if x is not None]
    changed = changes(row.published, row.recipe)
    left = [entry for entry in entries if not entry.stage.run.finished]
    failure = order.failure(row)
    predicted = sum(map(order.predicted, left)) if timed and left and not failure else None
    return {
        "name": row.name,
        "recipe_digest": row.recipe.digest,
        "published": asdict(published),
        "protocol": protocol(row.published, published),
        "seeds": [entry.stage.recipe.seed for entry in entries if entry.stage.run.finished],
        "runs": [str(run.path.relative_to(row.folder.parent)) for run in runs],
        "last": last,
        "best": best,
        "epoch": "best" if use_best else "last",
        "scores": scores,
        "teacher": _teacher_score(runs, metric),
        **asdict(judged(published, scores, changed)),
        "differences": list(_differences(row, published, runs, changed, metric)),
        "state": _state(failure, len(runs), len(entries), predicted, left),
        "predicted_seconds": predicted,
    }


def _value(measured: Mapping[str, Any], metric: str) -> float | None:
    return {**(measured["metrics"] or {}), **(measured["fidelity"] or {})}.get(metric)


def _teacher_score(runs: Sequence[Run], metric: str) -> float | None:
    """Return the figure of the teacher, as the runs measured it."""
    measured = [(run.evaluation["teacher"] or {}).get("metrics") or {} for run in runs]
    values = [each[metric] for each in measured if each.get(metric) is not None]
    return mean(values) if values else None


def _state(
    failure: str, finished: int, count: int, predicted: float | None, left: Sequence[Entry]
) -> str:
    if failure:
        return f"failed: {failure}"
    if finished == count:
        return "finished"
    begun = any(entry.stage.run.begun for entry in left)
    words = "not run" if not finished and not begun else f"{finished} of {count} seeds"
    if begun:
        words += ", one interrupted"
    return f"{words} (predicted {in_words(predicted)})" if predicted is not None else words


def _differences(
    row: Row,
    published: Published,
    runs: Sequence[Run],
    changed: Mapping[str, tuple[Any, Any]],
    metric: str,
) -> Iterator[str]:
    """Yield how our protocol differs from the published one, as far as both are known."""
    other = other_protocol(changed)
    for key in [*other, *(key for key in changed if key not in other)]:
        before, after = changed[key]
        yield f"{key} {_short(before)} → {_short(after)}"
    if published.epoch == "":
        yield "last epoch, where the published one is not stated"
    if runs and published.runs and published.runs != str(len(runs)):
        yield f"mean of {len(runs)}, published of {published.runs} runs"
    score = _teacher_score(runs, metric)
    if score is not None:
        beside = f", published {published.teacher}" if published.teacher else ""
        yield f"teacher {score:.2f}{beside}"
    if published.note:
        yield published.note


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)


def _teachers(order: Order) -> Iterator[dict[str, Any]]:
    """Yield the teachers that are trained for the rows."""
    stages: dict[str, tuple[Stage, Row]] = {}
    for entry in order.entries:
        if entry.row.teacher:
            stages.setdefault(str(entry.row.teacher.path), (entry.row.teacher, entry.row))
    for stage, row in stages.values():
        metric = tasks.find(stage.recipe.task, stage.recipe.training).headline
        run = stage.run
        yield {
            "name": stage.name.removeprefix("teacher "),
            "recipe_digest": stage.recipe.digest,
            "published": row.about.teacher,
            "score": _value(run.evaluation, metric) if run.finished else None,
            "run": str(stage.path.relative_to(row.settings.root)),
        }
