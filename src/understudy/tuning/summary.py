"""Write the result of a search from the directories of its trials."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Literal, final

from understudy import files
from understudy.config.recipe import Recipe
from understudy.training import hardware
from understudy.tuning.result import FILE, TUNED, Tuning
from understudy.tuning.search import Plan
from understudy.tuning.trials import Tried


@final
class Summary:
    """Writes `tuning.json` and `tuning.md` of a search.

    Args:
        plan: What is searched.
        recipe: Recipe of the search, as it was asked for.
        seeds: Seeds of the comparison that judges the winner.
        validation: Images that choose, in words.
        judged_on: Split that judges the winner.

    Attributes:
        root: Directory of the search.
        judged_on: As given.
    """

    def __init__(
        self,
        plan: Plan,
        recipe: Recipe,
        seeds: Sequence[int],
        *,
        validation: str,
        judged_on: Literal["test", "validation"],
    ) -> None:
        self.root, self.validation, self.judged_on = plan.root, validation, judged_on
        self._plan, self._recipe, self._seeds = plan, recipe, list(seeds)

    def write(self, trials: Sequence[Tried], winner: Tried | None = None) -> Tuning:
        """Write the result of the trials so far, and return it.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        plan = self._plan
        chosen = plan.candidates[winner.candidate].with_values(winner.values) if winner else {}
        tuning = Tuning(
            name=self._recipe.name,
            metric=plan.metric,
            recipe_digest=self._recipe.digest,
            machine=hardware.describe()["machine"],
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            validation=self.validation,
            judged_on=self.judged_on,
            rungs=list(plan.steps),
            ranges={x.name: [str(knob) for knob in x.knobs] for x in plan.candidates.values()},
            trials=[
                trial.to_dict()
                | {
                    "failed": trial.failed or trial.run.diverged,
                    "text": trial.text(),
                    "scores": {str(x): trial.value(x, plan.metric) for x in plan.steps},
                    "epochs": trial.epochs,
                    "seconds": trial.seconds,
                }
                for trial in trials
            ],
            winner=winner.number if winner else None,
            methods=chosen,
            seeds=self._seeds,
            path=self.root,
        )
        files.write(self.root / FILE, files.as_json(tuning.to_dict(), indent=1))
        files.write((self.root / FILE).with_suffix(".md"), tuning.markdown())
        if winner:
            tuned = replace(self._recipe, name="", methods=chosen)
            files.write(self.root / TUNED, tuned.to_yaml())
        return tuning
