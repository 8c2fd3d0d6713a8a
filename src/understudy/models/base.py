"""Base class of networks and detectors: a plain module, and its features by name."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Group, Locations, Observation, Shapes


class Wrapped(nn.Module, ABC):
    """Abstract base of a student or teacher: wraps a plain module and names its features.

    Attributes:
        module: The plain network, as it is outside of Understudy.
        name: Name for errors and tables.
        class_names: Names of the classes in the order of the logits; empty if unknown.
    """

    module: nn.Module
    name: str
    class_names: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Device of the weights; one that is quantised has no parameters."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Shape of every feature."""

    @property
    @abstractmethod
    def num_classes(self) -> int | None:
        """Number of classes, without a background class; None without a classifier."""

    @property
    @abstractmethod
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the layer that computes the logits, one row per logit.

        None without a classifier, or with several.
        """

    @property
    @abstractmethod
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the layer that computes the logits; None if it has none or there is no layer."""

    @abstractmethod
    def observe(self, batch: Batch) -> Observation:
        """Run a training forward pass: features for the methods, and the network's own losses.

        Only a detector has losses of its own, and in evaluation mode it has none; its features
        are those of training in both modes.
        """

    def observe_for_task(self, batch: Batch) -> Observation:
        """Run a training forward pass without methods, such as that of a control.

        It holds what the task's loss needs: a detector returns its own losses and no features.
        """
        return self.observe(batch)

    def observe_for_prepare(self, batch: Batch, student: "Wrapped") -> Observation:
        """Run a teacher's forward pass for `Method.prepare`, before training; without losses.

        Args:
            batch: A batch of training images.
            student: The student; a detector resizes images as its student does.
        """
        return self.observe(batch)

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Compute the features at the locations that another network's observation names.

        Args:
            locations: `Observation.locations` of that network.
            reads: Names of the features to compute; the result may hold more. None for all.

        Raises:
            NetworkError: This network has features of whole images only.
        """
        raise NetworkError(f"{self.name} looks at whole images, not at locations in them.")

    def group(self, name: str) -> Group:
        """Return one of the groups of locations that `shapes.groups` names.

        Raises:
            NetworkError: This network has no groups.
        """
        raise NetworkError(f"{self.name} has no groups of locations.")

    def frozen(self, precision: torch.dtype | None) -> "Wrapped":
        """Return this network, or a copy that is equal up to rounding while no weight changes.

        The copy may be faster, since what depends on the weights alone is computed once.

        Args:
            precision: Data type of the autocast under which it is called; None without autocast.
        """
        return self

    def outputs(self, batch: Batch) -> Features:
        """Compute in evaluation mode what metrics are computed from."""
        return self.observe(batch).features

    @abstractmethod
    def plain(self) -> nn.Module:
        """Return a copy of the module to deploy, in evaluation mode."""

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the classifier.

        Raises:
            NetworkError: The network has no linear classifier to put it before.
        """
        raise self._refusal("an embedding layer")

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Insert a layer behind the map `feature`; it stays in the deployed network.

        Raises:
            NetworkError: The network has no map of that name to put it behind.
        """
        raise self._refusal("a layer")

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Insert a layer behind the last map, and a new classifier that reads its spatial mean.

        Raises:
            NetworkError: The network's classifier does not read the mean of a last map.
        """
        raise self._refusal("another head")

    def depends_only_on_mean(self, feature: str) -> bool:
        """Return True if the output depends only on the spatial mean of the map `feature`."""
        return False

    def _refusal(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self.name} cannot take {what}: only networks that classify whole images can; use "
            "a method that adds none."
        )

    @abstractmethod
    def copy_classifier(self, other: "Wrapped") -> None:
        """Copy another network's classifier into the new head, if `rehead` made one."""

    def select_classes(self, rows: Sequence[int]) -> None:
        """Keep some of the classes, in a given order; the others are removed.

        Args:
            rows: Present number of each class to keep.

        Raises:
            NetworkError: The layers that compute the logits are not known.
        """
        raise NetworkError(f"The classes of {self.name} cannot be put in another order.")

    def same_classes(self, other: "Wrapped | None") -> bool:
        """Return True if there is another network and its classes are the same.

        Classes without names are the same if there are equally many.
        """
        if other is None or other.num_classes != self.num_classes:
            return False
        return self.class_names == other.class_names or not (self.class_names and other.class_names)
