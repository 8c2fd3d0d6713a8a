"""What every network is to Understudy: a plain module, and features by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Group, Locations, Observation, Shapes

FeatureReader = Callable[[Locations, Collection[str] | None], Features]
"""Gives features at locations: all, or those of some names and perhaps more."""


class Wrapped(nn.Module, ABC):
    """A plain module, the student or the teacher, that gives features by name.

    Attributes:
        module: The network as it is outside of Understudy.
        name: What errors and tables call it.
    """

    module: nn.Module
    name: str

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Shape of every feature."""

    @property
    @abstractmethod
    def num_classes(self) -> int | None:
        """Classes of the data that it tells apart; None without a classifier."""

    @property
    @abstractmethod
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of what gives the logits, a row for each; None without a classifier."""

    @property
    @abstractmethod
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of it; None if it has none, or without a classifier."""

    @abstractmethod
    def observe(self, batch: Batch) -> Observation:
        """One forward pass in training: what methods compare, and losses of its own if it has any.

        In evaluation mode there are no losses, and nothing else changes.
        """

    def observe_for_task(self, batch: Batch) -> Observation:
        """As `observe`, where nothing is compared: its own losses may be all there is."""
        return self.observe(batch)

    def observe_for_prepare(self, batch: Batch, student: "Wrapped") -> Observation:
        """Of a teacher, what a method measures before training: no losses.

        Args:
            batch: Some images.
            student: Which may have a say in what is seen of them.
        """
        return self.observe(batch)

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Features at the places at which another network was observed.

        Args:
            locations: Where.
            reads: Names of features to compute; there may be more. None for all.

        Raises:
            NetworkError: It looks at whole images alone.
        """
        raise NetworkError(f"{self.name} looks at whole images, not at places in them.")

    def group(self, name: str) -> Group:
        """One of the groups of places that `shapes` names.

        Raises:
            NetworkError: There are none.
        """
        raise NetworkError(f"{self.name} shows its places in one group.")

    def frozen_reader(self, precision: torch.dtype | None) -> FeatureReader:
        """What `at` gives, to rounding, as long as no weight changes; perhaps faster.

        Args:
            precision: Of the autocast that it is called in; None for none.
        """
        return self.at

    def outputs(self, batch: Batch) -> Features:
        """What it says of some images in evaluation: all that metrics are computed of."""
        return self.observe(batch).features

    @abstractmethod
    def plain(self) -> nn.Module:
        """A copy of the module to deploy, in evaluation mode."""

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the classifier.

        Raises:
            NetworkError: There is no place for one.
        """
        raise self._closed("an embedding layer")

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Let the map `feature` pass through a layer that stays.

        Raises:
            NetworkError: There is no place for one.
        """
        raise self._closed("a layer")

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Let the last map pass through a layer that stays, and classify its average anew.

        Raises:
            NetworkError: There is no place for one.
        """
        raise self._closed("another head")

    def depends_only_on_mean(self, feature: str) -> bool:
        """Whether nothing but the mean over the locations of a map matters to the output."""
        return False

    def _closed(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self.name} cannot take {what}: only networks that classify whole images can; use "
            "a method that adds none."
        )

    @abstractmethod
    def take_classifier(self, other: "Wrapped") -> None:
        """Fill the classifier of a new head with another network's, if a method made one."""
