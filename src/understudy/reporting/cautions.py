"""Warn where numbers can say little: arms near chance, training that ended early, few images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import mean

from understudy.checks.finding import Finding
from understudy.comparison.result import FILE as COMPARISON
from understudy.comparison.statistics import UNITLESS
from understudy.config.recipe import key_of_method
from understudy.experiment.evidence import (
    ACCURACIES,
    COARSE,
    DETECTION,
    FEWEST_STEPS,
    by_guessing,
    chance,
    standard_error,
)
from understudy.reporting.charts.training_curves import band
from understudy.reporting.collect import read, several_in
from understudy.reporting.columns import name
from understudy.reporting.measured_images import (
    MeasuredImages,
    measured_images,
    resolution,
    without_cka,
)
from understudy.reporting.results import Arm, Results
from understudy.reproduction import result as reproduction
from understudy.tuning import result as tuning

FEW = 200
"""Test images below which they are called few, for metrics without a simple standard error."""
STEEP = 2.0
"""Points by which the last tenth of the epochs raises a metric that has not settled."""
LONGER = 2
"""Factor of the epochs that are proposed where training ended early."""
MUCH_LONGER = 3
"""The same for students that have learned next to nothing."""


def cautions(results: Results) -> list[Finding]:
    """Return what limits the numbers of one comparison, or of some runs."""
    images = measured_images(results)
    near = _near(results, images)
    return [
        *_near_chance(results, images, near),
        *_rising(results, images, {arm.name for arm in near}),
        *_few_images(results, images),
    ]


def cautions_of(paths: Sequence[Path]) -> list[Finding]:
    """Return what limits the numbers of the directories that a report is about.

    Raises:
        RunError: A directory is missing or damaged.
    """
    return [
        replace(finding, message=f"{part}: {finding.message}" if part else finding.message)
        for part, folders in _parts(paths).items()
        for finding in cautions(read(folders))
    ]


def _parts(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return name → directories: of each of several comparisons, or under no name all there are."""
    folder = paths[0]
    if several := several_in(folder):
        return {several.called(part): [folder / own] for part, own in several.folders.items()}
    if (folder / tuning.FILE).is_file():
        judged = folder / tuning.JUDGED
        return {"": [judged]} if (judged / COMPARISON).is_file() else {}
    if (folder / reproduction.FILE).is_file():
        return {}
    return {"": list(paths)}


def longer_if_near_chance(results: Results) -> dict[str, int] | None:
    """Return the key by which students that are all near chance learn more; None if one is not."""
    near = _near(results, measured_images(results))
    students = [arm for arm in results.arms if arm.role != "teacher" and arm.values(results.metric)]
    return _epochs(near, MUCH_LONGER) if near and len(near) == len(students) else None


def _near(results: Results, images: MeasuredImages) -> list[Arm]:
    """Return the students that are hardly better than guessing."""
    limit = _limit(results, images)
    if limit is None:
        return []
    return [
        arm
        for arm in results.arms
        if arm.role != "teacher"
        and (values := arm.values(results.metric))
        and mean(values) <= limit
    ]


def _chance(results: Results, images: MeasuredImages) -> float | None:
    return chance(results.metric, len(results.classes), images.count, images.per_class)


def _limit(results: Results, images: MeasuredImages) -> float | None:
    """Return the value up to which a student is near chance: by images, and by what is left."""
    guessed = _chance(results, images)
    if guessed is None:
        return None
    if results.metric in DETECTION:
        return 1.0
    luck = 2 * standard_error(guessed, images.count) if images.count else 0.0
    return guessed + max(luck, min(guessed, (100 - guessed) / 20))


def _near_chance(
    results: Results, images: MeasuredImages, near: Sequence[Arm]
) -> Iterator[Finding]:
    control = results.control
    if not near:
        return
    metric, guessing = name(results.metric), by_guessing(_chance(results, images) or 0.0)
    values = ", ".join(f"{arm.name} {mean(arm.values(results.metric)):.2f}" for arm in near)
    message = f"{metric} is near chance ({guessing}) for {values}: "
    if control is None or control in near:
        what = "differences between such students say nothing." if control else "it learned little."
        yield Finding("near chance", "warning", message + what, _epochs(near, MUCH_LONGER))
        return
    reached = f"{mean(control.values(results.metric)):.2f}"
    message += f"the control, trained as long, reaches {reached}, so that the method is in the way."
    yield Finding("near chance", "warning", message, _smaller_weights(near))


def _epochs(arms: Sequence[Arm], factor: int) -> dict[str, int]:
    """Return the key of the recipe that trains longer; empty without a history.

    It is no shorter than what the doctor asks of a run from random weights.
    """
    last = [run.history[-1] for arm in arms for run in arm.runs if run.history]
    if not last:
        return {}
    trained = max(last, key=lambda record: record["epoch"])
    steps = trained.get("step", 0)
    fewest = ceil(FEWEST_STEPS * trained["epoch"] / steps) if steps else 0
    return {"training.epochs": max(factor * trained["epoch"], fewest)}


def _smaller_weights(arms: Sequence[Arm]) -> dict[str, float]:
    """Return the keys of a recipe that make the weights of some methods a third."""
    weights: Mapping[str, object] = {
        f"{key_of_method(method)}.weight": keys.get("weight")
        for arm in arms
        for method, keys in arm.methods.items()
    }
    return {k: float(f"{x / 3:.2g}") for k, x in weights.items() if isinstance(x, int | float)}


def _rising(results: Results, images: MeasuredImages, without: set[str]) -> Iterator[Finding]:
    """Yield a warning of arms whose metric still rises much in the last tenth of the epochs."""
    rises = {
        arm.name: (arm, *rise)
        for arm in results.arms
        if arm.runs and arm.name not in without and (rise := _last_rise(results, images, arm))
    }
    if not rises:
        return
    arms = [arm for arm, *_ in rises.values()]
    epochs = {span for _, _, span in rises.values()}
    digits = 3 if results.metric in UNITLESS else 1
    listed = ", ".join(f"{arm} by {rise:.{digits}f}" for arm, (_, rise, _) in rises.items())
    span = f"the last {max(epochs)} epochs" if max(epochs) > 1 else "the last epoch"
    trained = max(run.history[-1]["epoch"] for arm in arms for run in arm.runs)
    message = (
        f"{name(results.metric)} still rose in {span} of {trained}: {listed}. Training ended "
        "before it had settled"
    )
    message += ", and a longer one may rank the arms otherwise." if results.control else "."
    yield Finding("still rising", "warning", message, _epochs(arms, LONGER))


def _last_rise(results: Results, images: MeasuredImages, arm: Arm) -> tuple[float, int] | None:
    """Return by how much, and over how many epochs, a metric rose at the end; None if it settled.

    The mean over the seeds counts. Two networks that are equally good differ by chance on the same
    images; a rise within two such standard errors is none.
    """
    fidelity = results.judges_fidelity
    curve = band(arm.runs, "fidelity" if fidelity else "metrics", results.metric)
    if len(curve.epochs) < 3 or results.metric == "loss":
        return None
    last, start = curve.epochs[-1], curve.epochs[-1] - max(1, round(curve.epochs[-1] / 10))
    before = max(i for i, epoch in enumerate(curve.epochs) if epoch <= start)
    rise, scale = curve.middle[-1] - curve.middle[before], 0.01 if fidelity else 1.0
    noise = 0.0
    if results.metric in ACCURACIES and images.count:
        error = standard_error(curve.middle[-1], images.count)
        noise = 2 * error * (2 / len(arm.runs)) ** 0.5
    limit = max(STEEP * scale, noise)
    return (rise, last - curve.epochs[before]) if rise >= limit else None


def _few_images(results: Results, images: MeasuredImages) -> Iterator[Finding]:
    count = images.count
    values = [
        x for arm in results.arms if arm.role != "teacher" for x in arm.values(results.metric)
    ]
    if not count or not values:
        return
    metric = name(results.metric)
    images_of = f"{count:,} {images.split} image{'s' * (count != 1)}"
    advice = f"Put more images into the {images.split} split"
    if images.split == "validation":
        advice = "Hold more images out by --data.validation, or make a test split"
    advice += ", or measure a student on others by `understudy evaluate RUN --data.root FOLDER`."
    finished = [run for arm in results.arms for run in arm.runs if run.finished]
    left_out = {without_cka(run.evaluation["fidelity"], count) for run in finished} - {""}
    advice = " ".join([*left_out, advice])
    if results.metric in ACCURACIES:
        middle = mean(values)
        if standard_error(middle, count) > COARSE:
            message = f"{metric} is of {images_of}: {resolution(middle, count)}."
            yield Finding("few test images", "warning", message, advice=advice)
    elif count < FEW:
        message = f"{metric} is of {images_of}, so few that single ones decide it."
        yield Finding("few test images", "warning", message, advice=advice)
