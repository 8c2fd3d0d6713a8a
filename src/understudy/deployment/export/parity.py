"""Compare an exported network with the one of torch: largest difference, and changed decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from understudy.errors import NetworkError

TOLERANCE = 1e-4
"""Largest difference that is allowed, relative to the largest output where that is above 1."""
_NEAR = 1.0
"""Pixels by which the sides of two boxes may differ that are taken for the same detection."""

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
    """

    on: str
    images: int
    difference: float
    largest: float
    decisions: int
    changed: int

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
        return (
            f"largest difference {self.difference:.1e} (outputs up to {self.largest:.3g}) on "
            f"{self.images:,} {self.on}{equal}"
        )

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
        self._images = self._decisions = self._changed = 0
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
        counts = len(reference["boxes"]), len(other["boxes"])
        self._decisions += max(counts)
        self._changed += max(counts) - len(partners)

    def result(self, on: str) -> Parity:
        """Return the comparison of all batches."""
        return Parity(
            on, self._images, self._difference, self._largest, self._decisions, self._changed
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
