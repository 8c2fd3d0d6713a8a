"""The directory of a comparison: what it was begun by, and where its runs lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from understudy import files
from understudy.comparison.result import FILE, read_comparison
from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.errors import RunError
from understudy.experiment import defaults
from understudy.experiment.balance import adopted_weights
from understudy.experiment.call import call_of
from understudy.experiment.run_directory import Run
from understudy.experiment.taken import difference_of, free_beside
from understudy.training import hardware

REASONS = "reasons.json"
"""File of a comparison directory: key of the recipe that was `auto` → why it has its value."""


@final
@dataclass(frozen=True)
class Place:
    """The directory of a comparison.

    Attributes:
        root: Its path.
        function: Name of the function that such comparisons are begun by, as in `call.json`.
    """

    root: Path
    function: str = "compare"

    def check(self, *, resume: bool) -> None:
        """Refuse to continue what never began.

        Raises:
            RunError: Nothing began, or the path is an address.
        """
        files.refuse_address(self.root, "--out")
        if resume and not any(self.root.glob("*/seed*/recipe.yaml")):
            raise RunError(
                f"There is no comparison in {self.root} to continue; start without --resume."
            )

    def claim(self, recipe: Recipe, begun: Recipe | None) -> None:
        """Refuse to mix two comparisons in one directory.

        Args:
            recipe: Recipe of the comparison, with the values that `begun` has for what is `auto`.
            begun: As `begun` returns it.

        Raises:
            RunError: The directory holds a comparison by another recipe.
        """
        before, file = self.called(), self.root / FILE
        if before and begun:
            before = defaults.adopted(before, begun)
        digest = before.digest if before else recipe.digest
        digest = read_comparison(self.root)["recipe_digest"] if file.is_file() else digest
        if digest != recipe.digest:
            what = difference_of(before, recipe) if before else ""
            raise RunError(
                f"{self.root} holds a comparison by another recipe "
                f"({what or f'digest {digest} there, {recipe.digest} here'}); choose another "
                f"--out, such as --out {free_beside(self.root)}."
            )

    def called(self) -> Recipe | None:
        """Return the recipe that the comparison was called with; None without one."""
        call = call_of(self.root)
        recipe = call.arguments.get("recipe") if call and call.function == self.function else None
        return Recipe.from_dict(recipe) if isinstance(recipe, dict) else None

    def begun(self) -> Recipe | None:
        """Return the recipe of a run, or else of the call; None if none began."""
        runs = map(Run, sorted(self.root.glob("*/seed*")))
        return next((run.recipe for run in runs if run.begun), None) or self.called()

    def known(self, name: str, arm: Recipe) -> Recipe:
        """Return an arm with the weights that one of its runs began with, if they were found."""
        for run in map(Run, sorted((self.root / name).glob("seed*"))):
            if arm.weights != AUTO:
                return arm
            if run.begun:
                arm = adopted_weights(arm, run.recipe)
        return arm

    def run(self, arm: str, seed: int) -> Run:
        """Return the run of an arm and a seed."""
        return Run(self.root / arm / f"seed{seed}")

    def finished(self, arm: str, seeds: Sequence[int]) -> bool:
        """Return True if all runs of an arm are."""
        return all(self.run(arm, seed).finished for seed in seeds)

    def keep_reasons(
        self, reasons: Mapping[str, str], recipe: Recipe, arms: Mapping[str, Recipe]
    ) -> list[str]:
        """Write why keys that were `auto` have their values; return it in lines."""
        if reasons and hardware.is_first_process():
            files.write(self.root / REASONS, files.as_json(reasons, indent=1))
        # A weight of a method is a value of one arm: `kd+nd: methods.kd.weight`.
        of_arms = {f"{arm}: {k}": x for arm in arms for k, x in arms[arm].flat().items()}
        return defaults.say(reasons, recipe.flat() | of_arms)
