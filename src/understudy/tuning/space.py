"""The space of a search: which hyper-parameters of which methods, in which ranges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, final, get_args, get_origin

from understudy import methods
from understudy.config.limits import AsPath, InEpochs, Range
from understudy.config.recipe import Recipe
from understudy.config.schema import hints_of
from understudy.errors import RecipeError

if TYPE_CHECKING:
    from optuna.trial import Trial

_FACTOR = {"weight": 10.0}
"""How many times smaller or larger than its published value a number may become."""
_OTHER_FACTOR = 4.0

_LEFT_ALONE = ("eps", "seed")
"""Ends of the names of numbers on which a result should not depend."""


@final
@dataclass(frozen=True)
class Knob:
    """A number that the search chooses.

    Attributes:
        path: Dotted path below `methods`, such as `kd.temperature`.
        published: Value as published, or as the recipe sets it.
        low: Smallest value.
        high: Largest value.
        log: Whether values are drawn on a logarithmic scale.
        whole: Whether it is a whole number.
    """

    path: str
    published: float
    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, trial: "Trial", name: str) -> float:
        """Return a value that a trial of Optuna suggests, under a name of its own."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        # Rounded, so that the value reads well and is the same as a flag.
        return float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.4g}")

    def __str__(self) -> str:
        scale = ", log" if self.log else ""
        return f"{self.path} {self.low:g} to {self.high:g}{scale} (published {self.published:g})"


@final
@dataclass(frozen=True)
class Candidate:
    """A method, or several at once, and what the search may choose of it.

    Attributes:
        name: Method's name or label, or several joined by `+`.
        methods: As in a recipe, with every number that may be chosen at its published value.
        knobs: Numbers that the search chooses.
    """

    name: str
    methods: Mapping[str, Mapping[str, Any]]
    knobs: tuple[Knob, ...]

    def with_values(self, values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Return the methods as in a recipe, with values by their paths."""
        changed = {label: dict(entry) for label, entry in self.methods.items()}
        for path, value in values.items():
            label, _, key = path.rpartition(".")
            changed[label][key] = value
        return changed


def candidate(recipe: Recipe, name: str) -> Candidate:
    """Return what may be chosen of one arm, such as `kd` or `kd+nd`.

    Weights are searched between a tenth and ten times the published value, other numbers between a
    quarter and four times, on a logarithmic scale and within their declared limits. A share whose
    published value is 0 is searched over its whole range. Switches, names and what counts epochs
    stay as the recipe has them.

    Raises:
        RecipeError: A method does not exist, or its weight rises over epochs.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    knobs: list[Knob] = []
    for label in name.split("+"):
        own = dict(recipe.methods.get(label, {}))
        kind = methods.find(str(own.get("method", label)))
        published = {**kind.published.get(recipe.task, {}), **own}
        published.setdefault("weight", kind.published_weight)
        if isinstance(published["weight"], Mapping):
            raise RecipeError(
                f"The weight of '{label}' rises over epochs, and a search chooses one number: give "
                f"it by --methods.{label}.weight."
            )
        if own.get("method", label) != label:
            published["method"] = own["method"]
        entries[label] = published
        knobs += _knobs(label, kind, published)
    return Candidate(name, entries, tuple(knobs))


def _knobs(label: str, kind: type[methods.Method], published: Mapping[str, Any]) -> Sequence[Knob]:
    hints = hints_of(kind.__init__)
    numbers = {"weight": published["weight"]}
    for key, default in methods.hyper_parameters(kind).items():
        if not key.endswith(_LEFT_ALONE) and not _counts_epochs(hints.get(key)):
            numbers[key] = published.get(key, default)
    knobs = [
        _knob(f"{label}.{key}", _number(value, hints.get(key)), hints.get(key))
        for key, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return [knob for knob in knobs if knob is not None and knob.low < knob.high]


def _number(value: float, hint: Any) -> float:
    """Return a number in the type of its declaration: `weight: 5` is no whole number."""
    return value if isinstance(value, int) and _is_whole(hint) else float(value)


def _is_whole(hint: Any) -> bool:
    return hint is int or any(map(_is_whole, get_args(hint)))


def _knob(path: str, value: float, hint: Any) -> Knob | None:
    """Return the range in which a number is searched; None if none can be told."""
    limits, whole = _range(hint), isinstance(value, int)
    factor = _FACTOR.get(path.rpartition(".")[2], _OTHER_FACTOR)
    # Limits that must not be reached, such as 0 or 1, are not.
    least = limits.least if limits.above is None else limits.above + 0.1 * (value - limits.above)
    most = limits.most if limits.below is None else value + 0.9 * (limits.below - value)
    if value > 0:
        low, high = max(value / factor, least or 0.0), min(value * factor, most or math.inf)
        if whole:
            low, high = max(1, round(low)), round(high)
        return Knob(path, value, low, high, log=True, whole=whole)
    if value == 0 and most is not None and most <= 1 and not whole:
        return Knob(path, value, 0.0, most, log=False, whole=False)
    return None


def _range(hint: Any) -> Range:
    """Return the limits that are declared in a type; none if there are none."""
    parts = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((part for part in parts if isinstance(part, Range)), Range())


def _counts_epochs(hint: Any) -> bool:
    parts = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(part, InEpochs | AsPath) for part in parts)
