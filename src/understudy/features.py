"""Named features of a network, their shapes, and the protocols by which methods see networks."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Literal, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import ShapeError, short, suggestion

Features = dict[str, Tensor]
"""Name → tensor: a map `(batch, channels, height, width)`, tokens `(batch, tokens, dim)` or a
vector `(batch, dim)`."""

PREVIOUS_PATCHES = "patches/previous"
"""Patches of the last block but one, behind the last norm as those of the last one, `patches`."""

SECOND = "second"
"""First part of the names of features of a second pass, `second/patches`."""


@dataclass(frozen=True)
class ChangedImages:
    """Images of a batch that a method has changed, for a second pass of the student.

    Attributes:
        images: The images, in the order of the batch.
        features: What the loss needs to know of the change, by name.
    """

    images: Float[Tensor, "batch channels height width"]
    features: Features


Kind = Literal["vector", "tokens", "map"]
_KINDS: dict[int, Kind] = {1: "vector", 2: "tokens", 3: "map"}


@dataclass(frozen=True)
class TokenGrid:
    """Grid of an image's patches among its tokens: row by row, behind the prefix.

    Attributes:
        prefix: Number of tokens before the patches, such as class tokens and registers.
        height: Rows of patches.
        width: Patches in a row.
    """

    prefix: int
    height: int
    width: int

    def size(self, tokens: int) -> tuple[int, int]:
        """Return rows and columns of so many tokens, of images of any size in the same proportion.

        Raises:
            ShapeError: No such grid has so many patches.
        """
        count = tokens - self.prefix
        if count == self.height * self.width:
            return self.height, self.width
        height = round((max(count, 0) * self.height / self.width) ** 0.5)
        width = round(height * self.width / self.height)
        if height < 1 or height * width != count:
            raise ShapeError(
                f"{tokens} tokens are no grid in the proportion {self.height} × {self.width} of "
                f"the network's patches behind {self.prefix} other tokens: give images in the "
                "proportion of those that the network was built with."
            )
        return height, width

    @classmethod
    def square(cls, tokens: int) -> "TokenGrid | None":
        """Return the square grid of so many tokens, behind at most one class token; else None."""
        side = isqrt(tokens)
        return cls(tokens - side**2, side, side) if tokens - side**2 in (0, 1) else None

    def as_map(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch dim h w"]:
        """Return the patches among tokens as a map, without the tokens before them."""
        height, width = self.size(x.shape[1])
        return x[:, self.prefix :].transpose(1, 2).reshape(len(x), -1, height, width)


class Shapes(Mapping[str, tuple[int, ...]]):
    """Shape of every feature of one network, without the batch dimension.

    `shapes["stage3"]` is `(channels, height, width)`. An unknown name raises `ShapeError`, which
    lists the existing names and suggests the nearest spelling.

    Args:
        owner: Name of the network in error messages.
        shapes: Name → shape.
        exclusive_classes: True if classes exclude each other, so that a row of `logits` goes
            through a softmax; if False, every logit goes through a sigmoid of its own.
        classes: Number of classes of the labels; default: the number of logits.
        softmaxes: Number of softmaxes in a row of `logits`: the row is cut into so many equal
            parts. 0 if none. Default: 1 if `exclusive_classes`, else 0.
        background: True if the first class is the background.
        linear_classifier: True if `logits` are those of a linear layer on `penultimate`, as far as
            is known.
        groups: Shapes of each group of locations, by group name: feature `penultimate` of the group
            `level1` is named `level1/penultimate`.
        no_logits: Why there are no logits, and what to do if there should be, as a sentence.
        grids: Where the patches lie in each feature that is tokens, or a map of them, as far as
            is known.
        token_layout: The network's prefix tokens and patches in words, for errors; "" if unknown.
    """

    def __init__(
        self,
        owner: str,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        exclusive_classes: bool = True,
        classes: int | None = None,
        softmaxes: int | None = None,
        background: bool = False,
        linear_classifier: bool = True,
        groups: Mapping[str, "Shapes"] | None = None,
        no_logits: str = "",
        grids: Mapping[str, TokenGrid] | None = None,
        token_layout: str = "",
    ) -> None:
        self.owner, self.no_logits = owner, no_logits
        self.grids, self.token_layout = dict(grids or {}), token_layout
        self.exclusive_classes = exclusive_classes
        self.softmaxes = int(exclusive_classes) if softmaxes is None else softmaxes
        self.background, self.linear_classifier = background, linear_classifier
        self.groups = dict(groups or {})
        self._classes = classes
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise ShapeError(
                f"{self.owner} has no feature {short(name, 200)}{suggestion(name, self._shapes)}. "
                f"It has: {', '.join(self._shapes)}."
                f"{' ' + self.no_logits if name == 'logits' and self.no_logits else ''}"
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
        """Number of classes; None if unknown."""
        known = self._classes is not None or "logits" not in self
        return self._classes if known else self.vector("logits")

    def independent(self) -> "Shapes":
        """Return the same shapes for a network whose classes do not exclude each other."""
        # Without groups, which only detectors have: their tasks have exclusive classes.
        return Shapes(
            self.owner,
            self._shapes,
            exclusive_classes=False,
            classes=self._classes,
            linear_classifier=self.linear_classifier,
            no_logits=self.no_logits,
            grids=self.grids,
            token_layout=self.token_layout,
        )

    def kind(self, name: str) -> Kind:
        """Return whether feature `name` is a vector, tokens or a map."""
        return _KINDS[len(self[name])]

    def width(self, name: str) -> int:
        """Return the channels of a map, or the dimension of tokens or of a vector."""
        shape = self[name]
        return shape[0] if len(shape) == 3 else shape[-1]

    def of_tokens(self, name: str) -> bool:
        """Return True if a feature is tokens, or a map that was made of them."""
        return self.kind(name) == "tokens" or name in self.grids

    def vector(self, name: str) -> int:
        """Return the dimension of the vector `name`.

        Raises:
            ShapeError: The feature is a map or tokens.
        """
        if self.kind(name) != "vector":
            raise ShapeError(
                f"This method compares vectors, but {name!r} of {self.owner} is "
                f"{self.kind(name)} of shape {self[name]}; name a vector such as 'penultimate'."
            )
        return self[name][0]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, first to last.

        Raises:
            ShapeError: The network has no stages.
        """
        names = [name for name in self._shapes if re.fullmatch(r"stage\d+", name)]
        if not names:
            raise ShapeError(
                f"{self.owner} has no stages; it has: {', '.join(self._shapes)}. Name maps in "
                "the method's 'stages', or stages by taps such as 'stage1'."
            )
        return tuple(sorted(names, key=lambda name: int(name.removeprefix("stage"))))


class Locations(Protocol):
    """Locations in images at which both networks are read: boxes, or cells of a dense head."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Observation:
    """Result of one forward pass of a network in a training step.

    Attributes:
        features: Features of the images, or of locations in them.
        batch: Images, or locations, that the rows of the features belong to, with their labels.
        losses: The network's own losses on the labels, by name; empty if the task computes one.
        locations: Locations at which to read the other network; None for whole images.
    """

    features: Features
    batch: Batch
    losses: dict[str, Tensor] = field(default_factory=dict)
    locations: Locations | None = None


class TeacherOutputs(Protocol):
    """The teacher's classifier and its features of the training images, for `Method.prepare`."""

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"] | None:
        """Weight of the teacher's last linear layer; None if the teacher has no classifier."""

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the teacher's last linear layer; None if it has none."""

    @property
    def num_images(self) -> int:
        """Number of images in one pass."""

    def batches(self, *, augmented: bool) -> Iterator[tuple[Features, Batch]]:
        """Iterate once over the training images, clean or in their augmented view 0.

        If features come from a bank, the images are not loaded: `images` of the batch is then an
        empty tensor `(batch, 3, 0, 0)`.
        """

    def group(self, name: str) -> "TeacherOutputs":
        """Return the outputs of one group of locations; feature names lose the group's prefix."""


class Extendable(Protocol):
    """A student to which a method can add layers that stay in it after training."""

    @property
    def shapes(self) -> Shapes:
        """Shapes of the student's features."""

    @property
    def module(self) -> nn.Module:
        """The student's plain module."""

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the classifier."""

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Insert a layer after the map `feature`; `taps` name features to read inside the layer."""

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Insert a layer after `penultimate/map` and replace the classifier of its average."""

    def depends_only_on_mean(self, feature: str) -> bool:
        """Return True if the output depends only on the spatial mean of the map `feature`."""


class Group(Extendable, Protocol):
    """One group of locations of a network, such as one level of SSD."""

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        """Weight of the layer that computes the group's logits."""

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        """Bias of that layer; None if it has none."""


def of_group(features: Mapping[str, Tensor], group: str) -> Features:
    """Select the features of one group of locations; their names lose the group's prefix."""
    prefix = f"{group}/"
    return {k.removeprefix(prefix): x for k, x in features.items() if k.startswith(prefix)}


def by_group(
    features: Mapping[str, Tensor], batch: Batch, groups: Iterable[str]
) -> dict[str, tuple[Features, Batch]]:
    """Split features and batch by group; the batch holds the rows group after group."""
    result, start = {}, 0
    for group in groups:
        group_features = of_group(features, group)
        end = start + len(next(iter(group_features.values())))
        result[group] = group_features, batch[start:end]
        start = end
    return result
