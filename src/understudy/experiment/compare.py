"""The control and several methods under one budget over several seeds, with a verdict.

A comparison directory holds `comparison.json`, whose form is `Comparison`, and a run directory
`<arm>/seed<n>` for every arm and seed. It may be interrupted and continued: finished runs are kept.
An arm that diverges is left at that seed and recorded so; removing its run trains it anew.

All arms learn from one teacher: what it gives is kept in `bank`, filled by whichever run first
meets a view and replayed by all others, unless the recipe names a bank of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from understudy import files, tasks
from understudy.config.recipe import Recipe
from understudy.errors import Diverged, RecipeError, RunError
from understudy.experiment import build
from understudy.experiment.arms import CONTROL, Images, banked, named, seeded
from understudy.experiment.callback import Callback
from understudy.experiment.run_directory import Run
from understudy.experiment.statistics import Verdict, diverged, verdict
from understudy.experiment.train import train
from understudy.training import hardware


@dataclass(frozen=True)
class Comparison:
    """What was measured; an arm is a dictionary, so the file on disk is this very structure."""

    name: str
    task: str
    metric: str
    recipe_digest: str
    machine: str
    created: str
    seconds: float
    """What all runs took together, preparing included, however often they were interrupted."""
    classes: list[str]
    teacher: dict[str, Any]
    arms: list[dict[str, Any]]


def compare(
    recipe: Recipe,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    device: str | None = None,
    callback: Callback | None = None,
) -> Comparison:
    """Run the control and every arm over every seed, and state what came of it.

    Args:
        recipe: The experiment; its methods' hyper-parameters are used wherever an arm names them.
        methods: Arms: a method's name or label, or several joined by `+`; default: the recipe's
            methods, each by itself.
        seeds: One run of every arm for each.
        out: Comparison directory; default `runs/<recipe.name>`. Finished runs in it are kept.
        device: As for `train`.
        callback: Told about the progress of every run.

    Without a `bank.path` in the recipe, arms whose methods read what `bank.features` names share a
    bank in the comparison directory, if half of the free disk holds it. Its runs are the same to
    the bit as without one.

    Raises:
        RecipeError: No method, no teacher, or no seed to compare with.
        RunError: The directory holds another comparison, or runs on other images.
        UnderstudyError: An arm cannot be built, which is found before any is trained.
        Diverged: The control did.
    """
    _check_complete(recipe, seeds)
    root = Path(out) if out else Path("runs") / recipe.name
    _claim(root, recipe)
    images = Images(recipe)
    arms = _built(named(recipe, methods), seeds, root, images)
    runs = _execute(arms, seeds, root, images, device, callback)
    result = _comparison(recipe, arms, runs, seeds, root)
    if hardware.is_first_process():
        files.write(root / "comparison.json", json.dumps(asdict(result), indent=1))
    return result


def _check_complete(recipe: Recipe, seeds: Sequence[int]) -> None:
    if not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError("A comparison needs a teacher: give --teacher.name or a recipe with one.")
    if not seeds:
        raise RecipeError("A comparison needs at least one seed; three or more give an interval.")


def _claim(root: Path, recipe: Recipe) -> None:
    """Refuse to mix two comparisons in one directory."""
    file = root / "comparison.json"
    before = json.loads(file.read_text()) if file.is_file() else {"recipe_digest": recipe.digest}
    if before["recipe_digest"] != recipe.digest:
        raise RunError(
            f"{root} holds a comparison by another recipe (digest {before['recipe_digest']} there, "
            f"{recipe.digest} here); choose another --out."
        )


def _built(
    arms: Mapping[str, Recipe], seeds: Sequence[int], root: Path, images: Images
) -> dict[str, Recipe]:
    """Every arm with its bank; an arm that cannot be built is found before any is trained."""
    made, first = {}, seeds[0]
    for name, arm in arms.items():
        made[name] = arm
        if not all(Run(_place(root, name, seed)).finished for seed in seeds):
            experiment = build.experiment(replace(arm, seed=first), images=images.of(first))
            made[name] = banked(arm, experiment, root)
    return made


def _place(root: Path, arm: str, seed: int) -> Path:
    return root / arm / f"seed{seed}"


def _execute(
    arms: Mapping[str, Recipe],
    seeds: Sequence[int],
    root: Path,
    images: Images,
    device: str | None,
    callback: Callback | None,
) -> dict[str, list[Run]]:
    """The runs of every arm, one for each seed; those of an arm that diverged end with that run."""
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    if callback:
        callback.series(len(arms) * len(seeds))
    for seed in seeds:
        for name, arm in arms.items():
            if runs[name] and runs[name][-1].diverged:
                continue
            run = Run(_place(root, name, seed))
            runs[name].append(run)
            try:
                train(
                    seeded(arm, name, seed),
                    out=run.path,
                    resume=run.begun,  # What was interrupted goes on where it stopped.
                    device=device,
                    callback=callback,
                    images=None if run.finished else images.of(seed),
                )
            except Diverged:
                if name == CONTROL:
                    raise
        _check_same({name: group[-1] for name, group in runs.items()}, seed)
    return runs


def _check_same(runs: Mapping[str, Run], seed: int) -> None:
    """Whether all arms of a seed saw the same images and the same teacher."""
    wanted = runs[CONTROL].environment["digests"]
    for run in runs.values():
        if run.path.name == f"seed{seed}" and run.environment["digests"] != wanted:
            found = run.environment["digests"]
            what = ", ".join(key for key in wanted if found[key] != wanted[key])
            raise RunError(
                f"{run.path} was made with another {what} than the control; remove the older of "
                "both and compare again."
            )


def _comparison(
    recipe: Recipe,
    arms: Mapping[str, Recipe],
    runs: Mapping[str, list[Run]],
    seeds: Sequence[int],
    root: Path,
) -> Comparison:
    first = runs[CONTROL][0].evaluation
    done = [run for group in runs.values() for run in group if run.finished]
    filling = sum(run.evaluation["teacher_seconds"] or 0.0 for run in done)
    return Comparison(
        name=recipe.name,
        task=recipe.task,
        metric=tasks.find(recipe.task).headline,
        recipe_digest=recipe.digest,
        machine=hardware.describe()["machine"],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(run.seconds for group in runs.values() for run in group),
        classes=first["classes"],
        teacher=first["teacher"] | {"seconds": filling},
        arms=[
            {
                "name": name,
                "methods": arms[name].methods,
                "seeds": list(seeds),
                "runs": [str(run.path.relative_to(root)) for run in group if run.finished],
                **_measurements([run.evaluation for run in group if run.finished]),
                "verdict": None if name == CONTROL else asdict(_judge(name, runs, recipe)),
            }
            for name, group in runs.items()
        ],
    )


def _judge(name: str, runs: Mapping[str, list[Run]], recipe: Recipe) -> Verdict:
    if runs[name][-1].diverged:
        return diverged(name, runs[name][-1].diverged)
    metric = tasks.find(recipe.task).headline
    arm, control = ([_score(run, metric) for run in runs[key]] for key in (name, CONTROL))
    teacher = runs[CONTROL][0].evaluation["teacher"]["metrics"].get(metric)
    return verdict(arm, control, teacher, name=name, metric=metric)


def _score(run: Run, metric: str) -> float:
    found = run.evaluation["metrics"] | run.evaluation["fidelity"]
    if metric not in found:
        raise RunError(
            f"{run.path} cannot be judged by {metric}: the test images have no labels; give some "
            "a label, or compare by --task none."
        )
    return float(found[metric])


def _measurements(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of one arm, a list over its finished seeds under every name."""
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
    """What a run took without filling the bank, which all arms share."""
    whole = evaluation["prepare_seconds"] + evaluation["seconds"]
    return float(whole - (evaluation["teacher_seconds"] or 0.0))


def _over_seeds(parts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Lists of all that any seed measured; None where one could not, on the images that it saw."""
    return {key: [part.get(key) for part in parts] for one in parts for key in one}
