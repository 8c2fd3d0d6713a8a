"""The search: trials in their order, trained from rung to rung, within a budget of time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import final

from understudy.config.recipe import Recipe
from understudy.errors import Busy, Interrupted, RecipeError, UnderstudyError, Unfinished
from understudy.experiment.images import ImagesOfRecipes
from understudy.experiment.progress import number_text
from understudy.experiment.run_time import in_words
from understudy.experiment.train import train
from understudy.reproduction.budget import Budget
from understudy.tuning.rungs import STOPPED, StopsAfter, epochs_to_train, promoted, rungs
from understudy.tuning.space import Candidate
from understudy.tuning.suggest import Scored, Suggestions
from understudy.tuning.trials import Tried

LOGGER = logging.getLogger("understudy")


@final
@dataclass(frozen=True)
class Plan:
    """What is searched, and how.

    Attributes:
        root: Directory of the search.
        arms: Candidate's name → recipe of its trials, behind the bank that all share.
        candidates: Methods, and what may be chosen of them.
        trials: Number of trials.
        metric: Metric that ranks students.
        judged_runs: Runs that are trained after the search, out of the same budget.
        device: As for `train`.
    """

    root: Path
    arms: Mapping[str, Recipe]
    candidates: Mapping[str, Candidate]
    trials: int
    metric: str
    judged_runs: int
    device: str | None

    @property
    def epochs(self) -> int:
        """Epochs of a whole run."""
        return next(iter(self.arms.values())).training.epochs

    @property
    def steps(self) -> tuple[int, ...]:
        """Epochs at which trials are compared."""
        return rungs(self.epochs)

    @property
    def seed(self) -> int:
        """Seed of all trials, and of the sampler."""
        return next(iter(self.arms.values())).seed

    def recipe(self, trial: Tried) -> Recipe:
        """Return what a trial trains."""
        arm = self.arms[trial.candidate]
        methods = self.candidates[trial.candidate].with_values(trial.values)
        return replace(arm, name=f"trial {trial.number}", methods=methods)

    def begun(self) -> list[Tried]:
        """Return the trials that were begun, in their order.

        Raises:
            RunError: The file of one is damaged.
        """
        trials: list[Tried] = []
        while trial := Tried.read(self.place(len(trials))):
            trials.append(trial)
        return trials

    def place(self, number: int) -> Path:
        """Return the run directory of a trial."""
        return self.root / "trials" / f"{number:03}"


@final
class Search:
    """Trains trials to the first rung, then the best of them further, and names the best of all.

    Args:
        plan: What is searched.
        budget: Time that may be spent, on the search and on what follows it.
        images: Reads the images of the trials.
        after_trial: Called whenever something of a trial changed.
    """

    def __init__(
        self,
        plan: Plan,
        budget: Budget,
        images: ImagesOfRecipes,
        after_trial: Callable[[Sequence[Tried]], object],
    ) -> None:
        self._plan, self._budget, self._images = plan, budget, images
        self._after_trial = after_trial
        self._trials = plan.begun()

    def run(self) -> Tried:
        """Return the trial with the best whole run on the validation images.

        Raises:
            RecipeError: The budget holds not even the published values.
            Unfinished: No trial could be trained to its end.
            Interrupted: A signal arrived or the budget is spent; the state was saved.
        """
        self._sample()
        steps = self._plan.steps
        for before, step in pairwise(steps):
            ranked = self._ranked(before)
            for trial in ranked[: promoted(len(ranked))]:
                self._train(trial, step)
        if not (ranked := self._ranked(steps[-1])):
            raise Unfinished(f"No trial could be trained to its end, first: {self._reason()}")
        return ranked[0]

    def _sample(self) -> None:
        """Train all trials to the first rung, as far as the budget holds them."""
        plan = self._plan
        suggestions = Suggestions(list(plan.candidates.values()), seed=plan.seed)
        for trial in list(self._trials):
            self._train(trial, plan.steps[0])
        while len(self._trials) < max(plan.trials, len(plan.candidates)):
            if not self._holds_another():
                LOGGER.info(
                    f"The budget holds {len(self._trials)} of {plan.trials} trials, with the runs "
                    "that follow; a longer --budget goes on from here."
                )
                return
            name, values, published = suggestions.next([self._scored(x) for x in self._trials])
            number = len(self._trials)
            trial = Tried(number, name, values, published, plan.place(number))
            trial.write()
            self._trials.append(trial)
            self._train(trial, plan.steps[0])

    def _holds_another(self) -> bool:
        """Return True if the budget holds one more trial and all that follows the trials.

        Raises:
            RecipeError: It does not even hold the published values, of which none is left out.
        """
        needed = self._needed(len(self._trials) + 1)
        if needed is None or needed <= self._budget.left:
            return True
        if len(self._trials) >= len(self._plan.candidates):
            return False
        raise RecipeError(
            f"--budget leaves {in_words(max(self._budget.left, 0.0))}, and about "
            f"{in_words(needed)} are needed for the published values, the search and the runs that "
            "judge it: give more time, fewer --methods or --seeds, or fewer --training.epochs. "
            "What was trained is kept; the same command goes on."
        )

    def _needed(self, trials: int) -> float | None:
        """Return the seconds of so many trials and of all that follows; None if not known yet."""
        trained = [trial for trial in self._trials if trial.epochs]
        if not trained:
            return None
        epoch = mean(trial.seconds / trial.epochs for trial in trained)
        plan = self._plan
        ahead = epochs_to_train(trials, plan.steps, begun=len(self._trials))
        # Of what follows the trials some may be trained already, by a call before.
        done = sum(max(0, trial.epochs - plan.steps[0]) for trial in trained)
        return epoch * (max(0.0, ahead - done) + plan.judged_runs * plan.epochs)

    def _train(self, trial: Tried, epochs: int) -> None:
        """Train a trial to a rung, and say how good it is there; a failed one is kept as failed."""
        if trial.failed or trial.value(epochs, self._plan.metric) is not None:
            return
        # Of a trial only its score is said: a line for each of its epochs would hide the others.
        stops = StopsAfter(epochs) if epochs < self._plan.epochs else None
        try:
            recipe = self._plan.recipe(trial)
            train(
                recipe,
                out=trial.path,
                resume=trial.run.begun,
                device=self._plan.device,
                threads="auto",
                images=self._images(recipe),
                callback=stops,
            )
        except Interrupted as error:
            if STOPPED not in str(error):
                raise
        except Busy:
            raise
        except UnderstudyError as error:
            self._fail(trial, str(error))
        if not trial.run.diverged and not trial.failed:
            self._say(trial, epochs)
        self._after_trial(self._trials)

    def _fail(self, trial: Tried, reason: str) -> None:
        failed = replace(trial, failed=reason)
        failed.write()
        self._trials[trial.number] = failed
        LOGGER.warning(f"Trial {trial.number} ({trial.text()}) failed: {reason}")

    def _say(self, trial: Tried, epochs: int) -> None:
        plan = self._plan
        best = self._ranked(epochs)
        score = number_text(trial.value(epochs, plan.metric))
        beside = ", the best so far" if best and best[0].number == trial.number else ""
        count = max(plan.trials, len(self._trials))
        LOGGER.info(
            f"trial {trial.number + 1:>{len(str(count))}}/{count}  epoch {epochs}/{plan.epochs}  "
            f"validation {plan.metric} {score}{beside}: {trial.text()}"
        )

    def _ranked(self, epochs: int) -> list[Tried]:
        """Return the trials that reached a rung, the best first; of equals the earlier first."""
        scores = {
            trial.number: trial.value(epochs, self._plan.metric)
            for trial in self._trials
            if not trial.failed
        }
        reached = [trial for trial in self._trials if scores.get(trial.number) is not None]
        return sorted(reached, key=lambda trial: -(scores[trial.number] or 0.0))

    def _scored(self, trial: Tried) -> Scored:
        score = None if trial.failed else trial.value(self._plan.steps[0], self._plan.metric)
        return trial.candidate, trial.values, score

    def _reason(self) -> str:
        return next((trial.failed for trial in self._trials if trial.failed), "none was begun")
