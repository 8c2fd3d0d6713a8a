"""What a network gives: named features of one forward pass, and their shapes beforehand."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError, suggestion

Features = dict[str, Tensor]
"""Name → tensor: a map `(batch, channels, height, width)`, tokens or a vector `(batch, dim)`."""

Kind = Literal["vector", "tokens", "map"]
_KINDS: dict[int, Kind] = {1: "vector", 2: "tokens", 3: "map"}


class Shapes(Mapping[str, tuple[int, ...]]):
    """The shape of every feature of one network, without the batch dimension.

    `shapes["stage3"]` is `(channels, height, width)`. Asking for a feature that the network
    does not have raises `ShapeError` with the names there are and the nearest spelling.

    Args:
        owner: What errors call the network.
        shapes: Name → shape.
        exclusive_classes: True if classes exclude each other, so that a row of `logits` goes
            through a softmax; if False, every logit goes through a sigmoid of its own.
        classes: How many values a label has; default: as many as there are logits.
        softmaxes: Into how many equal parts a row of `logits` is cut, each of which goes through a
            softmax; 0 without any. Default: 1 if `exclusive_classes`.
        groups: Shapes of the rows of several groups of locations, by the name of the group: feature
            `penultimate` of the group `level1` is named `level1/penultimate`.
    """

    def __init__(
        self,
        owner: str,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        exclusive_classes: bool = True,
        classes: int | None = None,
        softmaxes: int | None = None,
        groups: Mapping[str, "Shapes"] | None = None,
    ) -> None:
        self.owner = owner
        self.exclusive_classes = exclusive_classes
        self.softmaxes = int(exclusive_classes) if softmaxes is None else softmaxes
        self.groups = dict(groups or {})
        self._classes = classes
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise ShapeError(
                f"{self.owner} has no feature {name!r}{suggestion(name, self._shapes)}. "
                f"It has: {', '.join(self._shapes)}."
            )
        return self._shapes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __repr__(self) -> str:
        return f"Shapes({self.owner!r}, {self._shapes})"

    @property
    def classes(self) -> int | None:
        """How many values a label has; None if nobody knows."""
        known = self._classes is not None or "logits" not in self
        return self._classes if known else self.vector("logits")

    def independent(self) -> "Shapes":
        """The same, of a network whose classes do not exclude each other."""
        return Shapes(self.owner, self._shapes, exclusive_classes=False, classes=self._classes)

    def kind(self, name: str) -> Kind:
        """Whether feature `name` is a vector, tokens or a map."""
        return _KINDS[len(self[name])]

    def width(self, name: str) -> int:
        """Channels of a map, dimension of tokens or of a vector."""
        shape = self[name]
        return shape[0] if len(shape) == 3 else shape[-1]

    def vector(self, name: str) -> int:
        """Dimension of the vector `name`; `ShapeError` if it is a map or tokens."""
        if self.kind(name) != "vector":
            raise ShapeError(
                f"This method compares vectors, but {name!r} of {self.owner} is "
                f"{self.kind(name)} of shape {self[name]}; name a vector such as 'penultimate'."
            )
        return self[name][0]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, first to last; `ShapeError` if there is none."""
        names = [name for name in self._shapes if re.fullmatch(r"stage\d+", name)]
        if not names:
            raise ShapeError(
                f"{self.owner} has no stages; it has: {', '.join(self._shapes)}. Name maps in "
                "the method's 'stages', or stages by taps such as 'stage1'."
            )
        return tuple(sorted(names, key=lambda name: int(name.removeprefix("stage"))))


class Locations(Protocol):
    """Locations in images at which both networks are read: boxes, or positions of a dense head."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Observation:
    """What one forward pass of a network gives a step of training.

    Attributes:
        features: Of the images, or of locations in them.
        batch: What the rows of the features are of: images with labels, or locations with theirs.
        losses: The network's own losses on labels, by name; empty where the task computes one.
        locations: Where the other network is to be read; None for whole images.
    """

    features: Features
    batch: Batch
    losses: dict[str, Tensor] = field(default_factory=dict)
    locations: Locations | None = None


class TeacherOutputs(Protocol):
    """The teacher's view of the training images, for a method's `prepare`."""

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the teacher's last linear layer; None if the teacher has no classifier."""

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of that layer; None if it has none."""

    @property
    def num_images(self) -> int:
        """How many images one pass delivers."""

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        """One pass over the training images: each once, clean or in its augmented view 0.

        Features that come from a bank need no images: those of their batch are then an empty
        tensor `(batch, 3, 0, 0)`.
        """

    def group(self, name: str) -> "TeacherOutputs":
        """Return the outputs of one group of locations; feature names lose the group's prefix."""


class Extendable(Protocol):
    """A student as a method sees it when it wants to add layers that stay."""

    @property
    def shapes(self) -> Shapes:
        """Shapes of the student's features."""

    @property
    def module(self) -> nn.Module:
        """The student as it is outside of Understudy."""

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the classifier."""

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Let the map `feature` pass through a layer that stays; `taps` name what is read in it."""

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Let `penultimate/map` pass through a layer that stays, and classify its average anew."""

    def depends_only_on_mean(self, feature: str) -> bool:
        """Whether nothing but the mean over the locations of the map `feature` matters."""


class Group(Extendable, Protocol):
    """A group of locations of a network, as a method sees it."""

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        """Weight of what gives the logits of the group."""

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        """Bias of it; None if it has none."""


def of_group(features: Mapping[str, Tensor], group: str) -> Features:
    """The features of one group of locations, without its name before theirs."""
    mine = f"{group}/"
    return {k.removeprefix(mine): x for k, x in features.items() if k.startswith(mine)}


def by_group(
    features: Mapping[str, Tensor], batch: Batch, groups: Iterable[str]
) -> dict[str, tuple[Features, Batch]]:
    """Features and rows of each group; the rows of a batch follow each other group by group."""
    found, start = {}, 0
    for group in groups:
        own = of_group(features, group)
        end = start + len(next(iter(own.values())))
        found[group] = own, batch[start:end]
        start = end
    return found
