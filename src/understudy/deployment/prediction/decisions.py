"""Decisions of a network on pictures: how its outputs become predictions, for each task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from understudy.deployment.prediction.predictions import (
    Boxes,
    Classes,
    Failed,
    LabelSet,
    Prediction,
    Vector,
)
from understudy.errors import NetworkError
from understudy.models.outputs import key_of_logits, pick
from understudy.models.taps import pool_to_vector

Preprocess = Callable[[UInt8[Tensor, "3 height width"]], Float[Tensor, "channels new_h new_w"]]
"""Prepares one picture as the network takes it."""


@final
@dataclass(frozen=True)
class ReadPicture:
    """A picture that was read.

    Attributes:
        name: Path of its file, or `picture` and its position.
        note: What is to be said of it; empty if nothing.
        image: The picture as the network takes it; of a detector, in uint8 as it was read.
    """

    name: str
    note: str
    image: Tensor


class Decision(ABC):
    """Abstract base of what is predicted of a picture.

    Attributes:
        batch: Pictures at once, unless asked otherwise.
        whole: True if the network takes pictures of any size, which are prepared one by one.
        columns: Columns of the rows of its predictions, without `note` and `error`; none of a
            vector, whose length is known from the first one on.
    """

    batch: ClassVar[int] = 32
    whole: ClassVar[bool] = False
    columns: Sequence[str]

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)

    @abstractmethod
    def decide(
        self, module: nn.Module, pictures: Sequence[ReadPicture], preprocess: Preprocess
    ) -> list[Prediction]:
        """Run a network on a batch and return a prediction for each picture.

        Raises:
            NetworkError: It does not return what the task needs.
        """

    def _label(self, number: int) -> str:
        return self._classes[number] if number < len(self._classes) else str(number)

    def _labels(self, numbers: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._label(number) for number in numbers)


class _OfLogits(Decision):
    """Abstract base of decisions on one row of logits for each picture."""

    def decide(
        self, module: nn.Module, pictures: Sequence[ReadPicture], preprocess: Preprocess
    ) -> list[Prediction]:
        images = torch.stack([picture.image for picture in pictures]).to(device_of(module))
        logits = logits_of(module(images), len(self._classes) or None, type(module).__name__)
        return [
            self._prediction(picture, row) if bool(row.isfinite().all()) else _not_finite(picture)
            for picture, row in zip(pictures, logits.float().cpu(), strict=True)
        ]

    @abstractmethod
    def _prediction(
        self, picture: ReadPicture, logits: Float[Tensor, " classes"]
    ) -> Prediction: ...


@final
class MostProbable(_OfLogits):
    """The most probable classes of one-label classification.

    Args:
        classes: Names of the classes; empty if unknown.
        top: Number of classes to name.
    """

    def __init__(self, classes: Sequence[str], *, top: int) -> None:
        super().__init__(classes)
        self._top = min(top, len(classes)) if classes else top
        ends = ["", *(f"_{rank}" for rank in range(2, self._top + 1))]
        pairs = [f"{column}{end}" for end in ends for column in ("label", "probability")]
        self.columns = ("name", *pairs)

    def _prediction(self, picture: ReadPicture, logits: Tensor) -> Classes:
        # Stable, so that of equal logits the first is the decision, as for `argmax`.
        values, order = logits.softmax(0).sort(descending=True, stable=True)
        numbers = order[: self._top].tolist()
        return Classes(
            picture.name,
            self._labels(numbers),
            as_floats(values[: self._top]),
            tuple(numbers),
            note=picture.note,
        )


@final
class Present(_OfLogits):
    """The classes of multi-label classification that are present.

    Args:
        classes: Names of the classes; empty if unknown.
        threshold: Probability from which a class counts as present.
    """

    columns = ("name", "label", "probability")

    def __init__(self, classes: Sequence[str], *, threshold: float) -> None:
        super().__init__(classes)
        self._threshold = threshold

    def _prediction(self, picture: ReadPicture, logits: Tensor) -> LabelSet:
        values, order = logits.sigmoid().sort(descending=True, stable=True)
        count = int((values >= self._threshold).sum())
        numbers = order[:count].tolist()
        return LabelSet(
            picture.name,
            self._labels(numbers),
            as_floats(values[:count]),
            tuple(numbers),
            self._threshold,
            note=picture.note,
        )


@final
class Objects(Decision):
    """The objects that a detector of torchvision's form finds.

    Pictures of one size are computed together and others apart: padded to the size of a larger one,
    a picture would get other scores.

    Args:
        classes: Names of the classes, without a background; empty if unknown.
        threshold: Score from which an object is named.
    """

    batch = 4
    whole = True
    columns = ("name", "label", "score", "left", "top", "right", "bottom")

    def __init__(self, classes: Sequence[str], *, threshold: float) -> None:
        super().__init__(classes)
        self._threshold = threshold

    def decide(
        self, module: nn.Module, pictures: Sequence[ReadPicture], preprocess: Preprocess
    ) -> list[Prediction]:
        """Run the detector on a batch and return the objects in each picture."""
        return [
            self._prediction(picture, output)
            for _, same in groupby(pictures, key=lambda picture: picture.image.shape)
            for picture, output in self._detected(module, list(same), preprocess)
        ]

    def _detected(
        self, module: nn.Module, pictures: Sequence[ReadPicture], preprocess: Preprocess
    ) -> Iterator[tuple[ReadPicture, dict[str, Tensor]]]:
        device = device_of(module)
        outputs: Any = module([preprocess(picture.image).to(device) for picture in pictures])
        return zip(pictures, outputs, strict=True)

    def _prediction(self, picture: ReadPicture, output: dict[str, Tensor]) -> Prediction:
        boxes, scores, labels = (output[key].cpu() for key in ("boxes", "scores", "labels"))
        # Class 0 is the background, which dense detectors score as the others.
        kept = (scores >= self._threshold) & (labels > 0)
        numbers = (labels[kept] - 1).tolist()
        height, width = picture.image.shape[-2:]
        left, top, right, bottom = (as_floats(side) for side in boxes[kept].unbind(1))
        return Boxes(
            picture.name,
            self._labels(numbers),
            as_floats(scores[kept]),
            tuple(zip(left, top, right, bottom, strict=True)),
            tuple(numbers),
            width,
            height,
            self._threshold,
            note=picture.note,
        )


@final
class Feature(Decision):
    """The vector of a network without a classifier."""

    def __init__(self) -> None:
        super().__init__(())
        self.columns = ()

    def decide(
        self, module: nn.Module, pictures: Sequence[ReadPicture], preprocess: Preprocess
    ) -> list[Prediction]:
        """Run the network on a batch and return the vector of each picture."""
        images = torch.stack([picture.image for picture in pictures]).to(device_of(module))
        value = module(images)
        output = pick(value, key_of_logits(value, lambda _: False, type(module).__name__))
        if output is None:
            raise NetworkError(f"{type(module).__name__} returns no tensor, but a vector is asked.")
        vectors = pool_to_vector(output).float().cpu()
        return [
            Vector(picture.name, tuple(row.tolist()), note=picture.note)
            if bool(row.isfinite().all())
            else _not_finite(picture)
            for picture, row in zip(pictures, vectors, strict=True)
        ]


def logits_of(value: Any, classes: int | None, name: str) -> Float[Tensor, "batch classes"]:
    """Return the logits in what a network returned.

    Args:
        value: What it returned.
        classes: Number of its classes; None if unknown.
        name: Name of the network for errors.

    Raises:
        NetworkError: It is not certain which tensor they are, or they are of another number.
    """
    key = key_of_logits(value, lambda x: x.ndim == 2 and x.shape[1] == classes, name)
    logits = pick(value, key)
    if logits is None or logits.ndim != 2 or classes not in (None, logits.shape[1]):
        shape = "nothing" if logits is None else f"values of shape {tuple(logits.shape[1:])}"
        raise NetworkError(
            f"{name} returns {shape} for a picture, but it has {classes} classes: its weights and "
            "the description beside them do not belong together."
        )
    return logits


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a network; the CPU of one without parameters."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def as_floats(values: Float[Tensor, " number"]) -> tuple[float, ...]:
    """Return numbers in the shortest form that is the same in float32, such as 0.1."""
    return tuple(float(str(value)) for value in values.numpy())


def _not_finite(picture: ReadPicture) -> Failed:
    problem = f"The network gives NaN or infinity for {picture.name}."
    return Failed(picture.name, problem, note=picture.note)
