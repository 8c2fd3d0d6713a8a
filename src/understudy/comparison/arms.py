"""The arms of a comparison: one recipe each, on the same images, behind one bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from understudy import files
from understudy.config.image_size import as_name
from understudy.config.limits import AUTO, PathText, Seed
from understudy.config.recipe import Bank, Recipe, teacher_and_method, without_methods
from understudy.config.schema import convert
from understudy.distillation.distiller import Distillation
from understudy.distillation.wire import check_methods
from understudy.errors import RecipeError, suggestion
from understudy.experiment import bank_attach, bank_contract, build, defaults, networks
from understudy.experiment.balance import balanced
from understudy.experiment.build import Experiment
from understudy.experiment.images import Images
from understudy.experiment.run_directory import Run
from understudy.models.cost import macs
from understudy.training.devices import processes

CONTROL = "control"
_TAKEN = {
    CONTROL: "the arm without a method",
    "bank": "the folder of the bank that the arms share",
}
SEED = "{seed}"
"""Placeholder in a path for the seed: of a student's weights, or of a bank of one seed alone."""
SIZE = "{size}"
"""Placeholder for the side of the views in the path of a bank that several students share."""


@final
@dataclass(frozen=True)
class Job:
    """One run of a comparison: its arm, its seed, its recipe and its directory."""

    arm: str
    seed: int
    recipe: Recipe
    run: Run

    @property
    def name(self) -> str:
        """Name of the run, such as `kd seed 0`."""
        return self.recipe.name

    @property
    def over(self) -> bool:
        """True if the run is finished or diverged: it is not trained any further."""
        return self.run.finished or bool(self.run.diverged)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds of a comparison that are none.

    Raises:
        RecipeError: A seed is out of range or named twice, or there is none.
    """
    for seed in seeds:
        convert(Seed, seed, "--seeds")
    if len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"The seeds {', '.join(map(str, seeds))} repeat themselves: a seed trained twice gives "
            "the same run twice, and no verdict. Name each once."
        )
    if not seeds:
        raise RecipeError("A comparison needs at least one seed; three or more give an interval.")


def named(recipe: Recipe, names: Sequence[str]) -> dict[str, Recipe]:
    """Return the control and one recipe for every arm, checked without images and weights.

    Args:
        recipe: The recipe of the comparison.
        names: Arms: a method's name or label, or several joined by `+`; none for the recipe's. Of a
            recipe with `teachers`: the name of a teacher, which stands for all its methods, or
            several; none for all of them together and each alone. All teachers stay in every arm,
            which is compared with each.

    Raises:
        RecipeError: An arm names a method that does not exist, or there is no arm.
        NetworkError: The teacher has no weights.
    """
    names = list(dict.fromkeys(names)) or _default_names(recipe)
    if not names:
        raise RecipeError("There is nothing to compare: name methods, such as --methods kd lshfm.")
    for name in set(names) & _TAKEN.keys():
        raise RecipeError(f"'{name}' is {_TAKEN[name]}; give your method a new label.")
    for name in names:
        convert(PathText, name, "--methods")
    arms = {CONTROL: without_methods(recipe)}
    for name in names:
        arms[name] = recipe.with_methods(_methods_of(recipe, name))
    for arm in arms.values():
        check_methods(arm)
        networks.check_teachers(arm)
    return arms


def _default_names(recipe: Recipe) -> list[str]:
    """Return each method as an arm; of several teachers all together, and each of them alone."""
    teaching = [name for name, teacher in recipe.teachers.items() if teacher.methods]
    together = ["+".join(teaching)] if len(teaching) > 1 else []
    return [*recipe.methods, *together, *teaching]


def _methods_of(recipe: Recipe, arm: str) -> dict[str, dict[str, Any]]:
    """Return the methods of an arm by their labels in the recipe.

    Raises:
        RecipeError: The recipe has several teachers, and the arm is none of them.
    """
    parts = arm.split("+")
    if not recipe.teachers:
        return {label: recipe.methods.get(label, {}) for label in parts}
    for part in parts:
        if part not in recipe.teachers or not recipe.teachers[part].methods:
            known = [name for name, teacher in recipe.teachers.items() if teacher.methods]
            raise RecipeError(
                f"'{part}' is no teacher of the recipe with methods{suggestion(part, known)}: with "
                f"`teachers`, --methods names teachers, each with all its methods: "
                f"{', '.join(known)}, or several by +, such as {'+'.join(known)}."
            )
    return {
        label: entry
        for label, entry in recipe.each_method.items()
        if teacher_and_method(label)[0] in parts
    }


@dataclass(frozen=True)
class Needs:
    """What one run of a comparison needs of a machine.

    Attributes:
        macs: Multiply-accumulate operations of the student on one view.
        bytes: Memory of images and networks, without what a step computes.
    """

    macs: int
    bytes: int


@dataclass(frozen=True)
class Checked:
    """What was learnt of the arms by building each of them once.

    Attributes:
        arms: Their recipes, in which nothing is `auto` any more, with the bank of the comparison.
        reasons: Key that was `auto` → why it has its value.
        needs: What a run of any of them needs.
    """

    arms: dict[str, Recipe]
    reasons: dict[str, str]
    needs: Needs


def _with_weights(
    arm: Recipe, experiment: Experiment, device: str | None
) -> tuple[Recipe, dict[str, str]]:
    """Find the weights of an arm with `weights: auto`: by its first seed, for all of them."""
    if arm.weights == AUTO and arm.each_method:
        experiment.distiller.to(device=processes(device).device)
        experiment.prepare()
    return balanced(arm, experiment)


def checked(
    arms: Mapping[str, Recipe], bank: Path, *, seed: int, images: Images, device: str | None
) -> Checked:
    """Build every arm once, to find mistakes early and to resolve what is `auto`.

    The teacher is loaded once for all arms.

    Args:
        arms: Arms to check; at least one.
        bank: Folder of the bank that they share.
        seed: Seed to build them with.
        images: Images of that seed.
        device: Where weights of methods are found, if they have to be.

    Raises:
        UnderstudyError: An arm cannot be built.
    """
    first, *_ = (_at(arm, seed) for arm in arms.values())
    loaded = build.load(first, images)
    banked: dict[str, Recipe] = {}
    reasons: dict[str, str] = {}
    for name, arm in arms.items():
        # All arms have the values of the first, whatever their methods add to the student.
        experiment = build.assemble(defaults.adopted(_at(arm, seed), first), loaded)
        first, reasons = experiment.recipe, reasons | dict(experiment.reasons)
        complete, measured = _with_weights(defaults.adopted(arm, first), experiment, device)
        reasons |= {f"{name}: {key}": reason for key, reason in measured.items()}
        banked[name] = with_bank_in(complete, experiment, bank)
    return Checked(banked, reasons, _needs(experiment))


def _needs(experiment: Experiment) -> Needs:
    sources = (experiment.images.train, experiment.images.test)
    pixels = sum(source.pixels.nbytes for source in sources if source.pixels is not None)
    weights = sum(parameter.nbytes for parameter in experiment.distiller.parameters())
    # Of the weights also gradients, momentum, and a copy in the student's moving average.
    return Needs(macs(experiment.distiller.student), pixels + 4 * weights)


def with_bank_in(arm: Recipe, experiment: Experiment, folder: Path) -> Recipe:
    """Return the arm with the banks of the comparison, which serve its methods and have room.

    A teacher with a name has a folder of its own in `folder`.
    """
    for each in experiment.distiller.distillations:
        arm = _with_bank_of(each, arm, experiment, folder / each.name if each.name else folder)
    return arm


def _with_bank_of(each: Distillation, arm: Recipe, experiment: Experiment, folder: Path) -> Recipe:
    bank = bank_contract.bank_of(arm, each.name)
    if bank.path or not bank_attach.serves(experiment, each, arm):
        return arm
    data, few_views = arm.data, experiment.train.views.count is not None
    # Otherwise the seed of the run decides which images are used, or which crops of them.
    shared = data.seed is not None or (few_views and not data.images)
    folder = Path(str(folder).replace(SIZE, as_name(experiment.train.views.size)))
    path, epochs = folder / ("all" if shared else SEED), arm.training.epochs
    banked = _with_bank(arm, each.name, replace(bank, path=str(path), views=epochs))
    contract = bank_contract.contract(experiment, each.teacher, banked)
    return banked if contract.bytes_after(epochs) < files.free_bytes(folder) / 2 else arm


def _with_bank(arm: Recipe, teacher: str, bank: Bank) -> Recipe:
    """Return the arm with another bank for one teacher."""
    if not teacher:
        return replace(arm, bank=bank)
    one = replace(arm.teachers[teacher], bank=bank)
    return replace(arm, teachers={**arm.teachers, teacher: one})


def seeded(arm: Recipe, name: str, seed: int) -> Recipe:
    """Return the recipe of one run of an arm."""
    banked = _at(arm, seed).with_banks(lambda bank: bank_of_seed(bank, seed))
    return replace(banked, name=f"{name} seed {seed}")


def _at(arm: Recipe, seed: int) -> Recipe:
    """Return the recipe of an arm with a seed, also in the path of its student's weights."""
    weights = arm.student.weights.replace(SEED, str(seed))
    return replace(arm, seed=seed, student=replace(arm.student, weights=weights))


def bank_of_seed(bank: Bank, seed: int) -> Bank:
    """Return a bank of a comparison with the seed put into its path, where seeds cannot share."""
    return replace(bank, path=bank.path.replace(SEED, f"seed{seed}"))
