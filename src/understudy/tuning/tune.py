"""Tune a recipe: search method, weight and hyper-parameters, and judge the winner on fresh seeds.

The directory holds

    trials/<number>    a run for every trial, with `trial.json`: what it tries
    bank               what the teacher gives for the views of the images, shared by all runs
    judged             the comparison of the winner, the published values and the control
    tuning.json        the result, in the form of `Tuning`, written after every trial
    tuned.yaml         the recipe with the methods of the winner, once there is one
    call.json          what `--resume` repeats

Trials are compared on validation images alone, at a ninth, a third and all of the epochs of the
recipe: the best third goes on each time, from its checkpoint. The same command goes on where it
stopped, whatever stopped it, with the same trials.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from understudy import files, locks, tasks
from understudy.checks.messages import unrepeated
from understudy.comparison.arms import check_seeds, checked, named
from understudy.comparison.compare import compare
from understudy.config.limits import AUTO
from understudy.config.naming import named as with_name
from understudy.config.recipe import Recipe, without_methods
from understudy.distillation.device_names import find_device
from understudy.errors import Interrupted, RecipeError, RunError
from understudy.experiment import build, defaults, splits
from understudy.experiment.call import Call, call_of
from understudy.experiment.callback import Callback
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.progress import displayed
from understudy.experiment.taken import difference_of, free_beside
from understudy.reproduction.budget import Budget, seconds_of
from understudy.tuning.planned import JUDGED_ARMS, judging_seeds
from understudy.tuning.result import JUDGED, Tuning
from understudy.tuning.rungs import rungs
from understudy.tuning.search import Plan, Search
from understudy.tuning.space import Candidate, candidate
from understudy.tuning.summary import Summary
from understudy.tuning.trials import Tried

LOGGER = logging.getLogger("understudy")

_HELD_OUT = 0.1
"""Share of the training images that chooses where a recipe has no validation images."""


@unrepeated()
def tune(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    methods: Sequence[str] = (),
    trials: int = 20,
    budget: str | float | None = None,
    seeds: Sequence[int] = (),
    out: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    jobs: int | None = 1,
    threads: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    images: ImagesOfRecipes | None = None,
) -> Tuning:
    """Search for the method and the hyper-parameters that suit a recipe, and judge the winner.

    The first trials are the published values of every method. The winner, the published values of
    the same method, and the control are trained again on fresh seeds and judged on the test images,
    which no trial was chosen by. A call goes on where an earlier one in the same directory stopped.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, dictionary, or `Recipe`.
        overrides: Keys of the recipe to replace; see `Recipe.load`.
        methods: Methods to choose from: names, labels, or several joined by `+`; default: those of
            the recipe, each by itself.
        trials: Settings to try.
        budget: Time that this call may spend on trials and judgement, such as `1h`, or in seconds;
            default: no limit. Trials that it does not hold are left out.
        seeds: Seeds of the runs that judge; default: the three after that of the recipe.
        out: Directory; default `runs/<recipe.name>_tuned`, or of a recipe without a name
            `runs/<student>_from_<teacher>_tuned`.
        resume: Refuse if there is no search in `out`.
        device: Name of a device, such as `cpu` or `cuda:1`; None for a GPU, or else the CPU.
        jobs: Runs of the judgement at once; see `compare`. Trials are trained one by one.
        threads: Threads of the CPU for the runs of the judgement; see `compare`.
        progress: Print progress and messages, as the command line does.
        callback: Called with the progress of every run.
        images: Images that were read already, if there are any.

    Returns:
        All trials, the winner and its verdict, which `tuning.json` in the directory holds too.

    Raises:
        RecipeError: The recipe is wrong, there is no method or teacher, or the budget is too small.
        RunError: The directory holds another search, or with `resume` none.
        Unfinished: No trial could be trained.
        UnderstudyError: Optuna is missing, or something does not fit together.
        Interrupted: SIGINT or SIGTERM arrived; the state was saved.

    Example:
        tuning = understudy.tune(
            "fashion/demo", {"teacher.weights": "runs/teacher"}, methods=["kd", "lshfm"], trials=12
        )
        print(tuning.headline(), tuning.flags)
    """
    watch = Budget(None if budget is None else seconds_of(budget))
    recipe = with_name(Recipe.load(recipe, overrides), "search")
    names = _names(recipe, methods)
    seeds = judging_seeds(recipe, seeds)
    _check(recipe, trials, seeds)
    find_device(device)
    root = Path(out) if out else default_place(recipe)
    _check_place(root, recipe, names, resume=resume)
    by_name = named(recipe, names)
    asked = recipe
    with locks.sole_writer(root), watch.watched():
        _call(recipe, names, trials, seeds, threads).write(root)
        with displayed(progress, callback):
            images = images or ImagesOfRecipes()
            recipe = _resolved(_with_validation(recipe, images), images)
            searched = {name: _searched(recipe, by_name[name]) for name in names}
            built = checked(
                searched, root / "bank", seed=recipe.seed, images=images(recipe), device=device
            )
            plan = _plan(root, recipe, built.arms, trials=trials, seeds=seeds, device=device)
            read = images(recipe)
            validation, judged_on = splits.count(read.counts()["validation"]), read.measured
            summary = Summary(plan, asked, seeds, validation=validation, judged_on=judged_on)
            _announce(plan, summary)
            try:
                winner = Search(plan, watch, images, summary.write).run()
            except Interrupted as error:
                return _stopped(error, watch, summary, plan.begun())
            tuning = summary.write(plan.begun(), winner)
            LOGGER.info(tuning.headline())
        judging, judged = judgement(recipe, plan.candidates[winner.candidate], winner)
        try:
            compare(
                judging,
                methods=judged,
                seeds=seeds,
                out=root / JUDGED,
                bank=root / "bank",
                device=device,
                jobs=jobs,
                threads=threads,
                progress=progress,
                callback=callback,
            )
        except Interrupted as error:
            with displayed(progress, callback):
                return _stopped(error, watch, summary, plan.begun(), winner)
    return summary.write(plan.begun(), winner)


def arms(
    recipe: Recipe, *, methods: Sequence[str] = (), trials: int = 20, seeds: Sequence[int] = ()
) -> list[Recipe]:
    """Return a recipe for every candidate of a search, with the images of its trials.

    Args:
        recipe: As for `tune`, as are the others.
        methods: Methods to choose from.
        trials: Settings to try.
        seeds: Seeds of the runs that judge.

    Raises:
        RecipeError: `tune` would refuse it.
    """
    names = _names(recipe, methods)
    _check(recipe, trials, judging_seeds(recipe, seeds))
    chosen = _choosing(recipe)
    return [replace(arm, name=name) for name, arm in named(chosen, names).items() if name in names]


def default_place(recipe: Recipe) -> Path:
    """Return the directory of a search that names none, which is that of no run or comparison."""
    return Path("runs") / f"{recipe.name.removesuffix('_tuned')}_tuned"


def judgement(recipe: Recipe, of: Candidate, winner: Tried) -> tuple[Recipe, list[str]]:
    """Return the recipe of the comparison that judges a winner, and its arms.

    The winner and the published values of the same methods are methods under labels of their own;
    a winner that has the published values is one arm.
    """
    tuned = _labelled("tuned", of.with_values(winner.values))
    published = _labelled("published", of.methods)
    entries = published if winner.published else tuned | published
    arms = [published] if winner.published else [tuned, published]
    return replace(recipe, methods=entries), ["+".join(arm) for arm in arms]


def _labelled(role: str, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return methods under labels that say their role: `tuned`, or of several `tuned-kd`."""
    return {
        role if len(methods) == 1 else f"{role}-{label}": {"method": label, **entry}
        for label, entry in methods.items()
    }


def _names(recipe: Recipe, methods: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(methods)) or list(recipe.methods)
    if not names:
        raise RecipeError("There is nothing to choose from: name methods, such as --methods kd nd.")
    return names


def _check(recipe: Recipe, trials: int, seeds: Sequence[int]) -> None:
    if "RANK" in os.environ:
        raise RecipeError("`tune` trains in one process: start it without torchrun.")
    if trials < 1:
        raise RecipeError(f"--trials cannot be {trials}: at least one setting is tried.")
    check_seeds(seeds)
    if recipe.seed in seeds:
        raise RecipeError(
            f"--seeds names {recipe.seed}, the seed of the trials, which the winner was chosen by: "
            "judge it by others."
        )
    if recipe.teachers:
        raise RecipeError(
            f"A search tries methods of one teacher, and the recipe has "
            f"{', '.join(recipe.teachers)}: name one by 'teacher', tune it, and put the values "
            "into the recipe with `teachers`."
        )
    if not recipe.each_teacher:
        raise RecipeError("A search needs a teacher: give --teacher.name or a recipe with one.")
    if recipe.weights == AUTO:
        raise RecipeError("`tune` searches for weights itself: leave `weights: auto` out.")
    if not tasks.find(recipe.task, recipe.training).uses_labels:
        raise RecipeError(
            f"The task {recipe.task!r} has no labels, by which trials could be ranked and judged."
        )


def _check_place(root: Path, recipe: Recipe, names: Sequence[str], *, resume: bool) -> None:
    """Refuse a directory of another search or of something else, or to continue what never began.

    Raises:
        RunError: It is one of these.
    """
    files.refuse_address(root, "--out")
    call = call_of(root)
    if call is None or call.function != "tune":
        if resume:
            raise RunError(f"There is no search in {root} to continue; start without --resume.")
        if call is not None or (root / "recipe.yaml").is_file():
            raise RunError(
                f"{root} holds something other than a search: choose another --out, such as --out "
                f"{free_beside(root)}."
            )
        return
    before = Recipe.from_dict(call.arguments["recipe"])
    difference = difference_of(before, recipe) if before.digest != recipe.digest else ""
    if call.arguments["methods"] != list(names):
        difference = (
            f"methods {', '.join(call.arguments['methods'])} there, {', '.join(names)} here"
        )
    if difference:
        raise RunError(
            f"{root} holds another search ({difference}); choose another --out, such as --out "
            f"{free_beside(root)}."
        )


def _call(
    recipe: Recipe, names: Sequence[str], trials: int, seeds: Sequence[int], threads: int | None
) -> Call:
    """Return what `--resume` repeats; the budget is spent anew by every call."""
    arguments = {"recipe": recipe.to_dict(), "methods": list(names), "trials": trials}
    return Call("tune", arguments | {"seeds": list(seeds), "threads": threads})


def _with_validation(recipe: Recipe, images: ImagesOfRecipes) -> Recipe:
    """Return the recipe with validation images, which all runs hold out, and one seed of views.

    Trials and judgement then see the same images, and one bank serves them.
    """
    chosen = _choosing(recipe)
    if recipe.data.validation == AUTO and (held_out := images(chosen).held_out):
        chosen = replace(chosen, data=replace(chosen.data, validation=held_out.value))
    if chosen.data.validation or images(chosen).validation is not None:
        return chosen
    LOGGER.info(
        f"There are no validation images: {_HELD_OUT:.0%} of the training images are held out to "
        "choose by, in all runs (data.validation)."
    )
    return replace(chosen, data=replace(chosen.data, validation=_HELD_OUT))


def _choosing(recipe: Recipe) -> Recipe:
    """Return the recipe that chooses by validation images, with one seed of views for all runs."""
    seed = recipe.seed if recipe.data.seed is None else recipe.data.seed
    data, training = replace(recipe.data, seed=seed), replace(recipe.training, best="validation")
    return replace(recipe, data=data, training=training)


def _resolved(recipe: Recipe, images: ImagesOfRecipes) -> Recipe:
    """Return the recipe with all that is `auto` chosen, and say it."""
    if not defaults.unresolved(recipe):
        return recipe
    control = build.experiment(without_methods(recipe), images=images(recipe))
    recipe = defaults.adopted(recipe, control.recipe)
    for line in defaults.say(control.reasons, recipe.flat()):
        LOGGER.info(line)
    return recipe


def _searched(recipe: Recipe, arm: Recipe) -> Recipe:
    """Return the recipe of the trials of an arm: it is measured at every rung."""
    every = rungs(recipe.training.epochs)[0]
    # Held out by the recipe, they are read whatever chooses `best/`, which no trial needs.
    best: Literal["none", "validation"] = "none" if recipe.data.validation else "validation"
    training = replace(recipe.training, evaluate_every=every, best=best)
    return replace(recipe, methods=arm.methods, training=training)


def _plan(
    root: Path,
    recipe: Recipe,
    arms: Mapping[str, Recipe],
    *,
    trials: int,
    seeds: Sequence[int],
    device: str | None,
) -> Plan:
    return Plan(
        root=root,
        arms=arms,
        candidates={name: candidate(recipe, name) for name in arms},
        trials=trials,
        metric=tasks.find(recipe.task, recipe.training).headline,
        judged_runs=JUDGED_ARMS * len(seeds),
        device=device,
    )


def _announce(plan: Plan, summary: Summary) -> None:
    """Say what is searched, and how."""
    for each in plan.candidates.values():
        LOGGER.info(f"{each.name}: {'; '.join(map(str, each.knobs))}")
    LOGGER.info(
        f"{plan.trials} trials, compared on validation images ({summary.validation}) after epochs "
        f"{', '.join(map(str, plan.steps))}: the best third goes on each time."
    )
    if summary.judged_on == "validation":
        LOGGER.warning(
            "Without test images, the validation images that choose the winner judge it too, so "
            "that its lead will be too large: part the images into folders train and test."
        )


def _stopped(
    error: Interrupted,
    watch: Budget,
    summary: Summary,
    trials: Sequence[Tried],
    winner: Tried | None = None,
) -> Tuning:
    """Return what there is of a search whose budget is spent.

    Raises:
        Interrupted: A signal ended it.
    """
    advice = files.continued_by(str(error), summary.root)
    if not watch.stopped:
        raise Interrupted(advice) from error
    LOGGER.info(f"The budget is spent. {advice}")
    return summary.write(trials, winner)
