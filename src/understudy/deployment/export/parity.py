"""Compare an exported network with the one of torch: largest difference, and changed decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor
from torchvision.ops import box_iou

from understudy.errors import NetworkError

TOLERANCE = 1e-4
"""Largest difference that is allowed, relative to the largest output where that is above 1."""
_NEAR = 1.0
"""Pixels by which the sides of two boxes may differ that are taken for the same detection."""
_TIE = 1e-6
"""Difference of two scores that rounding alone makes: which of them is larger is chance."""
_RIVALS = 0.3
"""Overlap from which one of two boxes may suppress the other."""

Decision = Literal["class", "classes", "objects", "vector"]
"""What is decided of an image; nothing where the network gives vectors."""


@dataclass(frozen=True)
class Parity:
    """Differences between two networks on the same images.

    Attributes:
        on: Which images, such as `test images`.
        images: Number of the images.
        difference: Largest difference of an output.
        largest: Largest absolute output.
        decisions: Number of decisions: images, labels of images, or detections.
        changed: How many of them differ.
        tied: How many of those are detections that rounding decides: their score equals, up to
            1e-6, that of a box they overlap, or of the last that is kept.
    """

    on: str
    images: int
    difference: float
    largest: float
    decisions: int
    changed: int
    tied: int = 0

    @property
    def allowed(self) -> float:
        """Largest difference that counts as equal."""
        return TOLERANCE * max(1.0, self.largest)

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        equal = (
            f"; {self.changed:,} of {self.decisions:,} decisions differ" if self.decisions else ""
        )
        if self.tied:
            equal += f" ({self.tied:,} between scores that are equal up to rounding)"
        return f"largest difference {self._size} on {self.images:,} {self.on}{equal}"

    @property
    def _size(self) -> str:
        """The largest difference, and as a share of the largest output where that is above 1."""
        if self.largest <= 1:
            return f"{self.difference:.1e} (outputs up to {self.largest:.3g})"
        share = f"{self.difference / self.largest:.1e} of the largest output, {self.largest:.3g}"
        above = f"; above {TOLERANCE:g}, but within {TOLERANCE:g} of that output"
        is_above = TOLERANCE < self.difference <= self.allowed
        return f"{self.difference:.1e} ({share}{above if is_above else ''})"

    def check(self, what: str) -> None:
        """Refuse a file whose outputs are not those of the network.

        Args:
            what: The file, for the error.

        Raises:
            NetworkError: The largest difference is not allowed.
        """
        if not self.difference <= self.allowed:
            raise NetworkError(
                f"{what} does not compute what the student computes: {self.sentence}, where "
                f"{self.allowed:.1e} is allowed. The file was removed; export to another form, or "
                "by another --opset."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON has it."""
        return asdict(self) | {"allowed": self.allowed, "sentence": self.sentence}


@final
class Comparison:
    """Differences, added up over batches.

    Args:
        decision: What is decided of an image.
        threshold: Output from which a class of several counts as present.
    """

    def __init__(self, decision: Decision, *, threshold: float = 0.0) -> None:
        self._decision, self._threshold = decision, threshold
        self._images = self._decisions = self._changed = self._tied = 0
        self._difference = self._largest = 0.0

    def add(self, reference: Tensor, other: Tensor) -> None:
        """Compare the outputs for a batch of whole images."""
        self._images += len(reference)
        self._see(reference, other)
        if self._decision == "class":
            changed = reference.argmax(1) != other.argmax(1)
        elif self._decision == "classes":
            changed = (reference >= self._threshold) != (other >= self._threshold)
        else:
            return
        self._decisions += changed.numel()
        self._changed += int(changed.sum())

    def add_detections(self, reference: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        """Compare the detections in one image, each with the nearest of its class.

        Boxes differ by their sides as shares of the largest coordinate.
        """
        self._images += 1
        largest = max(1.0, _maximum(reference["boxes"].abs()))
        partners = _partners(reference, other)
        for mine, its in partners:
            for key, unit in (("scores", 1.0), ("boxes", largest)):
                self._see(reference[key][mine] / unit, other[key][its] / unit)
        several = (reference, other)
        alone = [
            [row for row in range(len(one["boxes"])) if row not in matched]
            for one, matched in zip(several, _columns(partners), strict=True)
        ]
        # The side with more of them: one that changed its place is not counted twice.
        side = int(len(alone[1]) > len(alone[0]))
        self._decisions += max(len(one["boxes"]) for one in several)
        self._changed += len(alone[side])
        self._tied += _ties(several[side], alone[side], several[1 - side], alone[1 - side])

    def result(self, on: str) -> Parity:
        """Return the comparison of all batches."""
        return Parity(
            on,
            self._images,
            self._difference,
            self._largest,
            self._decisions,
            self._changed,
            self._tied,
        )

    def _see(self, reference: Tensor, other: Tensor) -> None:
        if reference.shape != other.shape:
            raise NetworkError(
                f"The exported network returns {tuple(other.shape)} where the student returns "
                f"{tuple(reference.shape)}: it was not exported as it is."
            )
        difference = _maximum((reference - other).abs())
        if difference != difference:  # NaN
            difference = float("inf")
        self._difference = max(self._difference, difference)
        self._largest = max(self._largest, _maximum(reference.abs()))


def _maximum(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _partners(
    reference: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> Sequence[tuple[int, int]]:
    """Return pairs of detections of one class whose boxes are the same up to a pixel."""
    if not len(reference["boxes"]) or not len(other["boxes"]):
        return []
    distance = (reference["boxes"][:, None] - other["boxes"][None]).abs().amax(2)
    distance[reference["labels"][:, None] != other["labels"][None]] = torch.inf
    # Two boxes at one place differ by their scores.
    distance += (reference["scores"][:, None] - other["scores"][None]).abs()
    pairs: list[tuple[int, int]] = []
    for mine, row in enumerate(distance):
        its = int(row.argmin())
        if float(row[its]) <= _NEAR:
            pairs.append((mine, its))
            distance[:, its] = torch.inf
    return pairs


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[set[int], set[int]]:
    """Return the first numbers of all pairs, and the second ones."""
    return {first for first, _ in pairs}, {second for _, second in pairs}


def _ties(
    mine: Mapping[str, Tensor],
    alone: Sequence[int],
    its: Mapping[str, Tensor],
    rivals: Sequence[int],
) -> int:
    """Return how many detections without a partner are so by rounding.

    Args:
        mine: Detections of one network.
        alone: Those without a partner.
        its: Detections of the other network.
        rivals: Those without a partner.
    """
    if not alone or not len(its["scores"]):
        return 0
    scores = mine["scores"][list(alone)]
    tied = (scores - its["scores"].min()).abs() <= _TIE  # as good as the last that is kept
    if rivals:
        rows, columns = list(alone), list(rivals)
        close = (scores[:, None] - its["scores"][columns][None]).abs() <= _TIE
        alike = mine["labels"][rows][:, None] == its["labels"][columns][None]
        overlap = box_iou(mine["boxes"][rows], its["boxes"][columns]) >= _RIVALS
        tied |= (close & alike & overlap).any(1)
    return int(tied.sum())
