"""Weights of losses, which may rise over the first epochs; plain numbers of any library."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, final

import numpy as np
from torch import Tensor

from understudy.config.limits import InEpochs, NonNegative, Range
from understudy.config.schema import build, convert
from understudy.errors import RecipeError, short, suggestion


@dataclass(frozen=True)
class Weight:
    """Coefficient of one loss, which rises linearly over the first `warmup_epochs`.

    Args:
        value: The weight after the warm-up.
        warmup_epochs: Epochs of the warm-up; 0 has none.
        warmup_counts_from: Number of the first epoch in the warm-up. The code of ND counts from 0,
            so that the first epoch has weight 0; that of mdistiller (DKD, ReviewKD) from 1: the
            first epoch has `value / warmup_epochs`, and epoch `warmup_epochs` the whole value.
    """

    value: NonNegative
    warmup_epochs: Annotated[float, Range(least=0), InEpochs()] = 0.0
    warmup_counts_from: Annotated[int, Range(least=0, most=1)] = 0

    def at(self, epoch: float) -> float:
        """Return the weight in an epoch counted from 0."""
        if not self.warmup_epochs:
            return self.value
        return self.value * min(1.0, (epoch + self.warmup_counts_from) / self.warmup_epochs)


def weight_of(loss: str) -> str:
    """Return the name of a loss's weight: `task` of all losses `task/…`, otherwise its own."""
    return "task" if loss.startswith("task/") else loss


def as_weight(path: str, value: Any) -> Weight:
    """Return a weight from a number, or from a mapping with the fields of `Weight`.

    Args:
        path: Name of the weight in errors.
        value: Number of Python, NumPy or a tensor of one; mapping; or a `Weight`.

    Raises:
        RecipeError: It is no finite number of at least 0, or has unknown fields.
    """
    if isinstance(value, Weight):
        value = asdict(value)
    value = plain_numbers(value)
    if not isinstance(value, Mapping):
        return Weight(convert(NonNegative, value, path))
    if "value" not in value:
        raise RecipeError(f"'{path}' is {short(value)}; it must have a 'value'.")
    return build(Weight, dict(value), path)


def plain_numbers(value: Any) -> Any:
    """Replace numbers of NumPy and tensors of one number by Python's, also inside of mappings."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(x) for key, x in value.items()}
    if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and not value.ndim):
        return value.item()
    return value


@final
class Weights(MutableMapping[str, Weight]):
    """Weight of every loss by name, which can be set to a plain number: `weights["kd"] = 5.0`.

    Args:
        weights: Weight of `task` and of every method; no other names can be set later.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = {name: as_weight(f"weights.{name}", x) for name, x in weights.items()}

    def __getitem__(self, name: str) -> Weight:
        self._check(name)
        return self._weights[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._check(name)
        self._weights[name] = as_weight(f"weights.{name}", value)

    def __delitem__(self, name: str) -> None:
        raise RecipeError(f"The loss '{name}' cannot lose its weight: set it to 0 instead.")

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"Weights({self._weights})"

    def at(self, epoch: int | None, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the weight of each of some losses in an epoch counted from 0.

        Raises:
            RecipeError: A loss has no weight, or one that depends on the epoch, which is None, or
                the epoch is no number of at least 0.
        """
        if epoch is not None:
            epoch = convert(NonNegative, plain_numbers(epoch), "epoch")
        names = {weight_of(name) for name in losses}
        weights = {name: self[name] for name in names}
        rising = [name for name, weight in weights.items() if weight.warmup_epochs]
        if epoch is None and rising:
            raise RecipeError(
                f"The weight of '{rising[0]}' rises over {weights[rising[0]].warmup_epochs:g} "
                "epochs: give the epoch, counted from 0, as `distiller.total(losses, epoch)`."
            )
        return {name: weight.at(epoch or 0) for name, weight in weights.items()}

    def _check(self, name: str) -> None:
        if name not in self._weights:
            raise RecipeError(
                f"There is no loss '{name}'{suggestion(name, self._weights)} with a weight; there "
                f"are: {', '.join(self._weights)}. Add a loss of your own to the total yourself."
            )
