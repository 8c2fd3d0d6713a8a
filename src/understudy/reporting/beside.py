"""Render the predictions of teacher, control and student on the same pictures as an HTML page."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image
from torch import Tensor

from understudy.deployment.prediction.companions import Companion, companions
from understudy.deployment.prediction.pictures import Item, Picture, listed
from understudy.deployment.prediction.predictions import Boxes, Classes, LabelSet, Prediction
from understudy.errors import DataError
from understudy.files import write
from understudy.models.cost import num_parameters
from understudy.reporting.charts.samples import Box, NamePositions
from understudy.reporting.charts.style import INKS
from understudy.reporting.html import environment

MOST = 100
"""Pictures on a page, which holds them itself."""
_SIDE = 360
"""Longest side of a picture on the page, in pixels."""
_SMALL = 64
"""Longest side in pixels of pictures that are shown pixel by pixel."""
_AT_ONCE = 16
_NOTABLE = 0.005
"""Probability from which a class that is not decided for is listed."""
_INKS = [ink for ink in INKS if ink.startswith("c") and ink[1:].isdecimal()]


Kind = Literal["decided", "same", "other", "rest"]
"""A decision that is compared with none, that the teacher makes too, or that it does not make; and
a class that is not decided for."""


@dataclass(frozen=True)
class Line:
    """A class that a network names, with its probability; None where only the teacher names it."""

    text: str
    share: float | None
    kind: Kind


@dataclass(frozen=True)
class Tile:
    """What one network predicts of one picture.

    Attributes:
        name: Name of the network.
        ink: Its colour.
        lines: Classes that it names.
        boxes: Objects that it names.
        drawn: True of a detector, also where it names no object.
        text: Prediction in words, where it is no classes.
        agrees: Whether it decides as the teacher does; None where that cannot be compared.
    """

    name: str
    ink: str
    lines: list[Line] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    drawn: bool = False
    text: str = ""
    agrees: bool | None = None


@dataclass(frozen=True)
class Shot:
    """One picture with the predictions of all networks, or the reason why there are none."""

    name: str
    note: str = ""
    problem: str = ""
    picture: str = ""
    kind: str = "jpeg"
    width: int = 0
    height: int = 0
    differs: bool = False
    tiles: list[Tile] = field(default_factory=list)


def write_beside(
    path: str | Path,
    pictures: Picture | Iterable[Picture],
    out: Path,
    *,
    top: int | None = None,
    threshold: float | None = None,
    trust: bool = False,
    device: str | None = None,
) -> Path:
    """Write a page that shows teacher, control and student on the same pictures.

    Args:
        path: Run or comparison directory; see `companions`.
        pictures: As for `Predictor.predict`; of more than `MOST` the first are shown.
        out: File to write, `.html`, or a directory for `beside.html`.
        top: As for `Predictor.predict`.
        threshold: As for `Predictor.predict`.
        trust: As for `companions`.
        device: As for `companions`.

    Returns:
        The file.

    Raises:
        DataError: There is no picture.
        UnderstudyError: As for `companions`.
    """
    file = out if out.suffix == ".html" else out / "beside.html"
    networks = companions(path, trust=trust, device=device)
    items = list(listed(pictures))
    shots = list(_shots(networks, items[:MOST], top=top, threshold=threshold))
    if not any(shot.tiles for shot in shots):
        problem = shots[0].problem if shots else "no picture was named."
        raise DataError(f"There is no picture to show: {problem}")
    write(file, page(networks, shots, total=len(items), title=str(path)), again="predict again")
    return file


def page(networks: Sequence[Companion], shots: Sequence[Shot], *, total: int, title: str) -> str:
    """Return the page as HTML that loads nothing else.

    Args:
        networks: Teacher, control and students, in the order of their tiles.
        shots: The pictures on the page.
        total: Number of pictures that were asked for.
        title: Which run or comparison it is.
    """
    templates = environment()
    predicted = [shot for shot in shots if shot.tiles]
    return templates.get_template("beside.html.j2").render(
        inks=INKS,
        title=title,
        headline=_headline(predicted),
        networks=[
            {
                "name": each.name,
                "ink": ink,
                "problem": each.problem,
                "source": each.predictor.source if each.predictor else "",
                "parameters": num_parameters(each.predictor.module) if each.predictor else 0,
            }
            for each, ink in _inked(networks)
        ],
        shots=shots,
        boxes=any(tile.drawn for shot in predicted for tile in shot.tiles),
        differing=sum(shot.differs for shot in shots),
        total=total,
    )


def _inked(networks: Sequence[Companion]) -> list[tuple[Companion, str]]:
    """Return each network with its colour, as in the charts of a report."""
    students = iter(_INKS * len(networks))
    return [(each, each.role if each.role != "student" else next(students)) for each in networks]


def _shots(
    networks: Sequence[Companion],
    items: Sequence[Item],
    *,
    top: int | None,
    threshold: float | None,
) -> Iterator[Shot]:
    """Yield every picture with the predictions of all networks, or why it cannot be read."""
    for start in range(0, len(items), _AT_ONCE):
        read = [_read(item) for item in items[start : start + _AT_ONCE]]
        images = [_as_image(picture[0]) for picture in read if isinstance(picture, tuple)]
        predicted = [
            iter(each.predictor.stream(images, top=top, threshold=threshold))
            for each in networks
            if each.predictor is not None
        ]
        for item, picture in zip(items[start : start + _AT_ONCE], read, strict=True):
            if isinstance(picture, str):
                yield Shot(_readable(item.name), problem=_readable(picture))
            else:
                yield _shot(item, *picture, networks, [next(each) for each in predicted])


def _read(item: Item) -> tuple[Tensor, str] | str:
    """Return pixels and note of a picture, or why it cannot be read."""
    try:
        return item.read()
    except DataError as error:
        return str(error)


def _shot(
    item: Item,
    pixels: Tensor,
    note: str,
    networks: Sequence[Companion],
    predictions: Sequence[Prediction],
) -> Shot:
    loaded = [(each, ink) for each, ink in _inked(networks) if each.predictor is not None]
    # Of several teachers, none is the one that the others are held against.
    only_teacher = [each.role for each, _ in loaded].count("teacher") == 1
    reference = predictions[0] if only_teacher else None
    tiles = [
        _tile(each.name, ink, prediction, None if prediction is reference else reference)
        for (each, ink), prediction in zip(loaded, predictions, strict=True)
    ]
    height, width = pixels.shape[1:]
    picture, kind = _encoded(pixels)
    return Shot(
        _readable(item.name),
        note=note,
        picture=picture,
        kind=kind,
        width=width,
        height=height,
        differs=any(tile.agrees is False for tile in tiles),
        tiles=tiles,
    )


def _encoded(pixels: Tensor) -> tuple[str, str]:
    """Return a picture in base64, reduced, and its format; small ones without loss."""
    image, file = _as_image(pixels), io.BytesIO()
    kind = "png" if max(image.size) <= _SMALL else "jpeg"
    image.thumbnail((_SIDE, _SIDE))
    image.save(file, kind.upper())
    return base64.b64encode(file.getvalue()).decode(), kind


def _readable(text: str) -> str:
    """Return text that UTF-8 has; names of files may hold bytes that it has not."""
    return text.encode(errors="replace").decode()


def _as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _tile(name: str, ink: str, prediction: Prediction, teacher: Prediction | None) -> Tile:
    """Return what a network predicts, and whether it decides as the teacher does."""
    if isinstance(prediction, Boxes):
        return Tile(name, ink, boxes=list(_boxes(prediction)), drawn=True, text=str(prediction))
    if isinstance(prediction, Classes):
        named = {teacher.label} if isinstance(teacher, Classes) else set()
        agrees = prediction.label in named if named else None
        return Tile(name, ink, lines=list(_ranked(prediction, agrees)), agrees=agrees)
    if isinstance(prediction, LabelSet):
        known = set(teacher.labels) if isinstance(teacher, LabelSet) else None
        agrees = None if known is None else known == set(prediction.labels)
        return Tile(name, ink, lines=list(_present(prediction, known)), agrees=agrees)
    return Tile(name, ink, text=str(prediction))


def _ranked(prediction: Classes, agrees: bool | None) -> Iterator[Line]:
    """Yield the decision, and other classes with a notable probability."""
    kinds: dict[bool | None, Kind] = {True: "same", False: "other", None: "decided"}
    for rank, (label, share) in enumerate(
        zip(prediction.labels, prediction.probabilities, strict=True)
    ):
        if rank == 0 or share >= _NOTABLE:
            yield Line(label, share, "rest" if rank else kinds[agrees])


def _present(prediction: LabelSet, known: set[str] | None) -> Iterator[Line]:
    """Yield the classes that are present, then those that only the teacher names."""
    for label, share in zip(prediction.labels, prediction.probabilities, strict=True):
        same: Kind = "same" if label in (known or ()) else "other"
        yield Line(label, share, "decided" if known is None else same)
    for label in sorted((known or set()) - set(prediction.labels)):
        yield Line(label, None, "other")


def _boxes(prediction: Boxes) -> Iterator[Box]:
    names = NamePositions(prediction.width, prediction.height)
    for label, score, (left, top, right, bottom), number in zip(
        prediction.labels, prediction.scores, prediction.boxes, prediction.numbers, strict=True
    ):
        yield Box(
            left,
            top,
            round(right - left, 1),
            round(bottom - top, 1),
            _INKS[number % len(_INKS)],
            f"{label} {score:.2f}",
            names.place(left, top, right),
            ignored=False,
        )


def _headline(shots: Sequence[Shot]) -> str:
    """Return how often each network decides as the teacher, or how many objects each names."""
    pictures = f"{len(shots)} picture{'s' * (len(shots) != 1)}"
    columns = list(zip(*(shot.tiles for shot in shots), strict=True))
    if any(x.drawn for tiles in columns for x in tiles):
        counts = (f"{tiles[0].name} {sum(len(x.boxes) for x in tiles)}" for tiles in columns)
        return f"Objects named in {pictures}: {', '.join(counts)}"
    compared = [tiles for tiles in columns if any(x.agrees is not None for x in tiles)]
    # Students come before the control, which comes before them in the order of the page.
    same = [(tiles[0].name, sum(x.agrees is True for x in tiles)) for tiles in compared[::-1]]
    if not same:
        return f"Predictions on {pictures}"
    (name, count), *others = same
    rest = "".join(f", {other} on {number}" for other, number in others)
    return f"{name} decides as the teacher on {count} of {pictures}{rest}"
