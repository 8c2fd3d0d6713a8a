"""Predictions as plain data: classes, label sets, boxes or a vector for each picture."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final, overload

from understudy import files
from understudy.experiment import plain_table

if TYPE_CHECKING:
    from pandas import DataFrame

Rows = list[dict[str, Any]]
"""Rows of a table: column → value."""


@dataclass(frozen=True)
class Prediction(ABC):
    """Abstract base of what a network predicts of one picture.

    Attributes:
        name: Path of the picture, or `picture` and its position.
        note: What is to be said of the picture, such as that it is the first of several in its
            file; empty if nothing.
    """

    name: str
    note: str = field(default="", kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return every attribute by its name, as JSON has them; no note where it is empty."""
        content = {key: _as_list(value) for key, value in asdict(self).items()}
        return content if self.note else {k: x for k, x in content.items() if k != "note"}

    def to_json(self) -> str:
        """Return the same as one line of JSON."""
        return files.as_json(self.to_dict())

    @abstractmethod
    def rows(self) -> Rows:
        """Return the rows of a table, at least one; a column that is missing has no value."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the prediction in words."""


@final
@dataclass(frozen=True)
class Classes(Prediction):
    """The most probable classes of a picture, the first is the decision.

    Attributes:
        labels: Names of the classes; their numbers as text where the names are not known.
        probabilities: Softmax of the logits, over all classes.
        numbers: Numbers of the classes, in the order of the logits.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    numbers: tuple[int, ...]

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.probabilities[0]

    def rows(self) -> Rows:
        """Return one row: `label`, `probability`, then `label_2`, `probability_2` and so on."""
        row: dict[str, Any] = {"name": self.name}
        pairs = zip(self.labels, self.probabilities, strict=True)
        for rank, (label, probability) in enumerate(pairs, 1):
            end = f"_{rank}" if rank > 1 else ""
            row |= {f"label{end}": label, f"probability{end}": probability}
        return [row]

    def __str__(self) -> str:
        return _listed(self.labels, self.probabilities)


@final
@dataclass(frozen=True)
class LabelSet(Prediction):
    """The classes that a picture shows, the most probable first.

    Attributes:
        labels: As for `Classes`, of the classes whose probability is at least `threshold`.
        probabilities: Sigmoid of their logits.
        numbers: As for `Classes`.
        threshold: Probability from which a class counts as present.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    numbers: tuple[int, ...]
    threshold: float

    def rows(self) -> Rows:
        """Return one row for every class: `label` and `probability`."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        rows: Rows = [
            {"name": self.name, "label": label, "probability": probability}
            for label, probability in pairs
        ]
        return rows or [{"name": self.name}]

    def __str__(self) -> str:
        return _listed(self.labels, self.probabilities) or "none"


@final
@dataclass(frozen=True)
class Boxes(Prediction):
    """The objects in a picture, the one with the highest score first.

    Attributes:
        labels: As for `Classes`, one for each object.
        scores: Score of each object, at least `threshold`.
        boxes: Left, top, right and bottom of each object, in pixels of the picture, upright.
        numbers: As for `Classes`.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        threshold: Score from which an object is kept.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    numbers: tuple[int, ...]
    width: int
    height: int
    threshold: float

    def rows(self) -> Rows:
        """Return one row for every object: `label`, `score`, `left`, `top`, `right`, `bottom`."""
        sides = ("left", "top", "right", "bottom")
        rows: Rows = [
            {
                "name": self.name,
                "label": label,
                "score": score,
                **dict(zip(sides, box, strict=True)),
            }
            for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True)
        ]
        return rows or [{"name": self.name}]

    def __str__(self) -> str:
        return _listed(self.labels, self.scores) or "none"


@final
@dataclass(frozen=True)
class Vector(Prediction):
    """The feature of a picture, of a network without a classifier.

    Attributes:
        values: Output of the network; maps and tokens averaged over their positions.
    """

    values: tuple[float, ...]

    def rows(self) -> Rows:
        """Return one row with a column for every value: `value_0`, `value_1` and so on."""
        return [{"name": self.name, **{f"value_{i}": x for i, x in enumerate(self.values)}}]

    def __str__(self) -> str:
        return f"{len(self.values)} values"


@final
@dataclass(frozen=True)
class Failed(Prediction):
    """A picture that cannot be read, or for which the network gives no numbers.

    Attributes:
        error: Why, in a sentence that names the picture.
    """

    error: str

    def rows(self) -> Rows:
        """Return one row: `error`."""
        return [{"name": self.name, "error": self.error}]

    def __str__(self) -> str:
        return self.error


@final
class Predictions(Sequence[Prediction]):
    """The predictions of several pictures, in their order."""

    SHOWN: ClassVar[int] = 20
    """Rows that a notebook shows."""

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        self._predictions = tuple(predictions)

    def __len__(self) -> int:
        return len(self._predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> "Predictions": ...

    def __getitem__(self, index: int | slice) -> "Prediction | Predictions":
        if isinstance(index, slice):
            return Predictions(self._predictions[index])
        return self._predictions[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and self._predictions == other._predictions

    def __hash__(self) -> int:
        return hash(self._predictions)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a dictionary for each picture."""
        return [each.to_dict() for each in self]

    def to_json(self) -> str:
        """Return the same as JSON, with a line for each picture."""
        return "[\n" + ",\n".join(each.to_json() for each in self) + "\n]\n"

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame: a row for each picture, or for each label or box of it.

        Raises:
            UnderstudyError: pandas is not installed.
        """
        return plain_table.frame([row for each in self for row in each.rows()])

    def table(self) -> str:
        """Return name and prediction of each picture as a Markdown table, also plain text."""
        return plain_table.markdown(self._cells(len(self)))

    def __repr__(self) -> str:
        return f"<Predictions: {len(self)} pictures>"

    def _repr_html_(self) -> str:
        return plain_table.html(self._cells(self.SHOWN), caption=f"{len(self)} pictures")

    def _cells(self, number: int) -> list[list[str]]:
        return [["picture", "prediction"], *([each.name, str(each)] for each in self[:number])]


def _as_list(value: Any) -> Any:
    return [_as_list(each) for each in value] if isinstance(value, tuple) else value


def _listed(labels: Sequence[str], shares: Sequence[float]) -> str:
    return ", ".join(f"{label} {share:.2f}" for label, share in zip(labels, shares, strict=True))
