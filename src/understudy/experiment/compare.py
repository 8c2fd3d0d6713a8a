"""Compare methods with a control under one budget over several seeds, with a verdict for each.

A comparison directory holds `comparison.json`, whose form is `Comparison`, and a run directory
`<arm>/seed<n>` for every arm and seed. It may be interrupted and continued: finished runs are kept.
An arm that diverges is not trained with later seeds, and its verdict says so. Delete the run that
diverged to train it again.

All arms learn from one teacher. Its outputs are stored in `bank`, by whichever run first meets a
view, and read by all others, unless the recipe names a bank of its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from understudy import files, tasks
from understudy.config.json_form import check_form
from understudy.config.recipe import Recipe
from understudy.distillation.device_names import find_device
from understudy.errors import Diverged, RecipeError, RunError
from understudy.experiment.arms import CONTROL, ImagesBySeed, checked, named, seeded
from understudy.experiment.callback import Callback
from understudy.experiment.comparison import FILE, Comparison, read_comparison
from understudy.experiment.progress import displayed
from understudy.experiment.run_directory import JUDGED, Run
from understudy.experiment.statistics import ImageSpread, Scores, Verdict, diverged, verdicts
from understudy.experiment.train import train
from understudy.tasks import Task
from understudy.training import hardware

Runs = dict[str, list[Run]]
"""Arm → its runs, one for each seed; those of an arm that diverged end with that run."""


def compare(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Comparison:
    """Run a control and every arm over every seed, and judge each arm against the control.

    Without a `bank.path` in the recipe, arms whose methods read what `bank.features` names share a
    bank in the comparison directory, if half of the free disk holds it. Its runs are the same to
    the bit as without one.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`. The
            hyper-parameters of its methods are used wherever an arm names them.
        overrides: Keys of the recipe to replace, such as `{"training.epochs": 1}`; see
            `Recipe.load`.
        methods: Arms: a method's name or label, or several joined by `+`; default: the recipe's
            methods, each by itself.
        seeds: One run of every arm per seed; three or more give an interval.
        out: Comparison directory; default `runs/<recipe.name>`. Finished runs in it are kept and
            interrupted ones continued, with or without `resume`.
        resume: Continue an interrupted comparison; refuse if there is none in `out`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.

    Returns:
        The measurements and verdicts, which `comparison.json` in the directory holds too.

    Raises:
        RecipeError: The recipe is wrong, or there is no method, no teacher, or no seed.
        RunError: The directory holds another comparison, runs on other images, or with `resume`
            nothing to continue; or another process writes it.
        UnderstudyError: An arm cannot be built, which is found before any is trained.
        Diverged: The control did.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.

    Example:
        teacher = {"teacher.weights": "runs/teacher"}
        comparison = understudy.compare("fashion/demo", teacher, methods=["kd", "lshfm", "kd+nd"])
        print(comparison.table())
    """
    recipe = Recipe.load(recipe, overrides)
    task = tasks.find(recipe.task, recipe.training)
    _check_complete(recipe, task, seeds)
    find_device(device)
    root = Path(out) if out else Path("runs") / recipe.name
    _check_place(root, resume=resume)
    arms = named(recipe, methods)
    first = hardware.is_first_process()
    with files.sole_writer(root) if first else nullcontext():
        _claim(root, recipe)
        images = ImagesBySeed(recipe, task)
        unfinished = {name: arm for name, arm in arms.items() if not _finished(root, name, seeds)}
        if unfinished:
            arms |= checked(unfinished, root, seed=seeds[0], images=images(seeds[0]))
        with displayed(progress, callback) as listener:
            runs = _execute(arms, seeds, root, images, device, listener)
        result = _comparison(recipe, arms, runs, seeds, root, metric=task.headline)
        if first:
            files.write(root / FILE, files.as_json(result.to_dict(), indent=1))
    return result


def _check_complete(recipe: Recipe, task: Task, seeds: Sequence[int]) -> None:
    if not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError("A comparison needs a teacher: give --teacher.name or a recipe with one.")
    if not task.uses_labels:
        raise RecipeError(
            f"The task {recipe.task!r} has no labels, from which a control would learn: train each "
            "method by `understudy distill`, and put the runs side by side by `understudy report`."
        )
    if len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"The seeds {', '.join(map(str, seeds))} repeat themselves: a seed trained twice gives "
            "the same run twice, and no verdict. Name each once."
        )
    if not seeds:
        raise RecipeError("A comparison needs at least one seed; three or more give an interval.")


def _check_place(root: Path, *, resume: bool) -> None:
    """Refuse to continue what never began."""
    files.refuse_address(root, "--out")
    if resume and not any(root.glob("*/seed*/recipe.yaml")):
        raise RunError(f"There is no comparison in {root} to continue; start without --resume.")


def _claim(root: Path, recipe: Recipe) -> None:
    """Refuse to mix two comparisons in one directory."""
    file = root / FILE
    digest = read_comparison(root)["recipe_digest"] if file.is_file() else recipe.digest
    if digest != recipe.digest:
        raise RunError(
            f"{root} holds a comparison by another recipe (digest {digest} there, {recipe.digest} "
            "here); choose another --out."
        )


def _finished(root: Path, arm: str, seeds: Sequence[int]) -> bool:
    return all(_run(root, arm, seed).finished for seed in seeds)


def _run(root: Path, arm: str, seed: int) -> Run:
    return Run(root / arm / f"seed{seed}")


def _execute(
    arms: Mapping[str, Recipe],
    seeds: Sequence[int],
    root: Path,
    images: ImagesBySeed,
    device: str | None,
    callback: Callback | None,
) -> Runs:
    """Train every arm over every seed, as far as it is not finished and did not diverge.

    Raises:
        Diverged: The control did.
    """
    runs: Runs = {name: [] for name in arms}
    if callback:
        callback.series(len(arms) * len(seeds))
    for seed in seeds:
        for name, arm in arms.items():
            if runs[name] and runs[name][-1].diverged:
                continue
            run = _run(root, name, seed)
            runs[name].append(run)
            try:
                train(
                    seeded(arm, name, seed),
                    out=run.path,
                    resume=run.begun,  # What was interrupted goes on where it stopped.
                    device=device,
                    callback=callback,
                    images=None if run.finished else images(seed),
                )
            except Diverged:
                if name == CONTROL:
                    raise
        _check_same({name: group[-1] for name, group in runs.items()}, seed)
    return runs


def _check_same(runs: Mapping[str, Run], seed: int) -> None:
    """Refuse arms of a seed that saw other images or another teacher than the control.

    Raises:
        RunError: A digest differs.
    """
    expected = runs[CONTROL].environment["digests"]
    of_seed = [run for run in runs.values() if run.path.name == f"seed{seed}"]
    for run in of_seed:
        digests = run.environment["digests"]
        if digests != expected:
            what = ", ".join(key for key in expected if digests[key] != expected[key])
            raise RunError(
                f"{run.path} was made with another {what} than the control; remove the older of "
                "both and compare again."
            )


def _comparison(
    recipe: Recipe,
    arms: Mapping[str, Recipe],
    runs: Runs,
    seeds: Sequence[int],
    root: Path,
    *,
    metric: str,
) -> Comparison:
    control = runs[CONTROL][0].evaluation
    finished = [run for group in runs.values() for run in group if run.finished]
    for run in finished:
        remedy = f"delete {run.path} and compare again"
        check_form(run.evaluation, JUDGED, run.path / "evaluation.json", remedy=remedy)
    judged = _judge(runs, metric)
    teacher_seconds = sum(run.evaluation["teacher_seconds"] or 0.0 for run in finished)
    return Comparison(
        name=recipe.name,
        task=recipe.task,
        metric=metric,
        recipe_digest=recipe.digest,
        machine=hardware.describe()["machine"],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(run.seconds for group in runs.values() for run in group),
        classes=control["classes"],
        teacher=control["teacher"] | {"seconds": teacher_seconds},
        arms=[
            {
                "name": name,
                "methods": arms[name].methods,
                "seeds": list(seeds),
                "runs": [str(run.path.relative_to(root)) for run in group if run.finished],
                **_measurements([run.evaluation for run in group if run.finished]),
                "verdict": asdict(judged[name]) if name in judged else None,
            }
            for name, group in runs.items()
        ],
        path=root,
    )


def _judge(runs: Runs, metric: str) -> dict[str, Verdict]:
    """The verdict on every arm but the control."""
    control, methods = runs[CONTROL], {k: v for k, v in runs.items() if k != CONTROL}
    ended = {name: group[-1].diverged for name, group in methods.items() if group[-1].diverged}
    scores = {
        name: Scores([_score(run, metric) for run in group], _image_spread(group, control, metric))
        for name, group in methods.items()
        if name not in ended
    }
    teacher = control[0].evaluation["teacher"]["metrics"].get(metric)
    judged = verdicts(scores, [_score(run, metric) for run in control], teacher, metric=metric)
    return judged | {name: diverged(name, reason) for name, reason in ended.items()}


def _image_spread(arm: Sequence[Run], control: Sequence[Run], metric: str) -> ImageSpread | None:
    """Spread of the difference over the choice of test images; None if a run kept no outcomes."""
    groups = [[run.outcomes for run in group] for group in (arm, control)]
    kept = [outcomes for group in groups for outcomes in group]
    if not all(kept) or {outcomes["metric"] for outcomes in kept} != {metric}:
        return None
    if kept[0]["correct"]:
        correct = [np.array([list(o["correct"]) for o in group]) == "1" for group in groups]
        return ImageSpread.paired(*correct)
    resampled = [np.array([o["resampled"] for o in group]) for group in groups]
    return ImageSpread.resampled(*resampled, images=kept[0]["images"])


def _score(run: Run, metric: str) -> float:
    values = run.evaluation["metrics"] | run.evaluation["fidelity"]
    if metric not in values:
        raise RunError(
            f"{run.path} cannot be judged by {metric}: the test images have no labels; give some "
            "a label, or train each method by `understudy distill --task none` and put the runs "
            "side by side by `understudy report`."
        )
    if values[metric] is None:
        raise RunError(
            f"{run.path} cannot be judged by {metric}, which could not be computed: look at the "
            "curves of that run."
        )
    return float(values[metric])


def _measurements(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the measurements of one arm, each a list over its finished seeds."""
    counted = evaluations[0] if evaluations else {}
    return {
        "metrics": _over_seeds([e["metrics"] for e in evaluations]),
        "per_class": [e["per_class"] for e in evaluations],
        "fidelity": _over_seeds([e["fidelity"] for e in evaluations]),
        "cost": {
            "seconds": [_own_seconds(e) for e in evaluations],
            "memory_mb": [e["memory_mb"] for e in evaluations],
            "parameters": counted.get("parameters"),
            "train_parameters": counted.get("train_parameters"),
        },
    }


def _own_seconds(evaluation: Mapping[str, Any]) -> float:
    """Return the seconds of a run without those of filling the bank, which all arms share."""
    whole = evaluation["prepare_seconds"] + evaluation["seconds"]
    return float(whole - (evaluation["teacher_seconds"] or 0.0))


def _over_seeds(parts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return name → values over the seeds; None for a seed that did not measure it."""
    return {key: [part.get(key) for part in parts] for one in parts for key in one}
