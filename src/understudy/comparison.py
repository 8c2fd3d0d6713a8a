"""The control and several methods under one budget over several seeds, with a verdict.

A comparison directory holds `comparison.json`, whose form is `Comparison`, and a run directory
`<arm>/seed<n>` for every arm and seed. It may be interrupted and continued: finished runs are kept.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from understudy import machine, storage, tasks
from understudy.errors import RecipeError
from understudy.execution import Watcher
from understudy.recipe import Recipe, without_methods
from understudy.run import Run, train
from understudy.verdict import verdict
from understudy.wiring import check_methods

CONTROL = "control"


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
    watcher: Watcher | None = None,
) -> Comparison:
    """Run the control and every arm over every seed, and state what came of it.

    Args:
        recipe: The experiment; its methods' hyper-parameters are used wherever an arm names them.
        methods: Arms: a method's name, or several joined by `+`; default: the recipe's methods.
        seeds: One run of every arm for each.
        out: Comparison directory; default `runs/<recipe.name>`. Finished runs in it are kept.
        device: As for `train`.
        watcher: Told about the progress of every run.

    Raises:
        RecipeError: No method, no teacher, or no seed to compare with.
    """
    started = time.monotonic()
    if not (recipe.teacher.name or recipe.teacher.weights):
        raise RecipeError("A comparison needs a teacher: give --teacher.name or a recipe with one.")
    if not seeds:
        raise RecipeError("A comparison needs at least one seed; three or more give an interval.")
    root = Path(out) if out else Path("runs") / recipe.name
    arms = _arms(recipe, methods)
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    if watcher:
        watcher.series(len(arms) * len(seeds))
    for seed in seeds:
        for name, arm in arms.items():
            path = root / name / f"seed{seed}"
            # Every run is resumed: a comparison that was interrupted goes on where it stopped.
            made = replace(arm, name=f"{name} seed {seed}", seed=seed)
            runs[name].append(train(made, out=path, resume=True, device=device, watcher=watcher))
    result = _comparison(recipe, arms, runs, seeds, root, time.monotonic() - started)
    storage.write(root / "comparison.json", json.dumps(asdict(result), indent=1))
    return result


def _arms(recipe: Recipe, names: Sequence[str]) -> dict[str, Recipe]:
    """The control and one recipe for every arm."""
    names = list(dict.fromkeys(names)) or list(recipe.methods)
    if not names:
        raise RecipeError("There is nothing to compare: name methods, such as --methods kd lshfm.")
    arms = {CONTROL: without_methods(recipe)}
    for name in names:
        parts = {label: recipe.methods.get(label, {}) for label in name.split("+")}
        arms[name] = replace(recipe, methods=parts)
    for arm in arms.values():
        check_methods(arm)
    return arms


def _comparison(
    recipe: Recipe,
    arms: dict[str, Recipe],
    runs: dict[str, list[Run]],
    seeds: Sequence[int],
    root: Path,
    seconds: float,
) -> Comparison:
    headline = tasks.find(recipe.task).headline
    evaluations = {name: [run.evaluation for run in arm] for name, arm in runs.items()}
    first = evaluations[CONTROL][0]
    teacher = first["teacher"]
    control = [_headline(e, headline) for e in evaluations[CONTROL]]
    listed = []
    for name, found in evaluations.items():
        arm = _arm(found)
        scores = [_headline(e, headline) for e in found]
        goal = teacher["metrics"].get(headline)
        judged = verdict(scores, control, goal, name=name, metric=headline)
        listed.append(
            {
                "name": name,
                "methods": arms[name].methods,
                "seeds": list(seeds),
                "runs": [str(run.path.relative_to(root)) for run in runs[name]],
                **arm,
                "verdict": None if name == CONTROL else asdict(judged),
            }
        )
    return Comparison(
        name=recipe.name,
        task=recipe.task,
        metric=headline,
        recipe_digest=recipe.digest,
        machine=machine.describe()["machine"],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=seconds,
        classes=first["classes"],
        teacher={"name": recipe.teacher.name} | teacher,
        arms=listed,
    )


def _arm(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of one arm, a list over seeds under every name."""
    first = evaluations[0]
    return {
        "metrics": _over_seeds([e["metrics"] for e in evaluations]),
        "per_class": [e["per_class"] for e in evaluations],
        "fidelity": _over_seeds([e["fidelity"] for e in evaluations]),
        "cost": {
            "seconds": [e["prepare_seconds"] + e["seconds"] for e in evaluations],
            "memory_mb": [e["memory_mb"] for e in evaluations],
            "parameters": first["parameters"],
            "train_parameters": first["train_parameters"],
        },
    }


def _over_seeds(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [part[key] for part in parts] for key in parts[0]}


def _headline(evaluation: dict[str, Any], name: str) -> float:
    return float((evaluation["metrics"] | evaluation["fidelity"])[name])
