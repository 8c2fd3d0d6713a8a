"""What the annotations of a split say, compared with its images: what is wrong, and what is done.

The size that an annotation states is the frame its boxes were drawn in. Where the image has the
same shape in another size, it was resized afterwards, and so are the boxes. Where it has another
shape, nobody can tell where the boxes lie, and the image is left out. A size of 0 × 0 says nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.data._image import SUFFIXES
from understudy.errors import DataError

Faulty = Literal["repair", "skip", "fail"]
"""Mend what can be mended and leave out the rest, leave out the whole image, or stop."""

ROUNDING = 0.5
"""Pixels by which a box may reach outside of its image before that is called a fault."""
_THIN = 0.01
"""Sides below it count as none: resized in float32 they could vanish, which detectors refuse."""
_ENDLESS = 2**31
"""Sides of so many pixels are of no image, and say as little as 0."""
_NUMBERS = 9


class Marked(NamedTuple):
    """One object as the annotation of an image has it."""

    name: str
    box: Sequence[float]
    """Left, top, right and bottom in pixels."""
    difficult: bool = False
    crowd: bool = False
    area: float = float("nan")
    """In pixels; that of the box where it is not a number."""


def images_in(folder: Path) -> list[Path]:
    """The image files that lie directly in a folder, by name; none if there is no folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        each for each in found if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")
    )


@dataclass(frozen=True)
class Table:
    """Objects of many images, one row each, sorted by image."""

    image: Int64[Tensor, " objects"]
    labels: Int64[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    difficult: Bool[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]
    areas: Float[Tensor, " objects"]

    def __getitem__(self, rows: Tensor) -> "Table":
        return Table(*(x[rows] for x in self.columns()))

    def columns(self) -> tuple[Tensor, ...]:
        """All columns, in the order of the fields."""
        return self.image, self.labels, self.boxes, self.difficult, self.crowd, self.areas


@dataclass(frozen=True)
class Listing:
    """The images that annotations name, with their objects.

    Attributes:
        root: Folder of the set, below which errors name files.
        numbers: Class name → label.
        paths: Image files, each once.
        stated: Height and width that the annotation of each image states; 0 where it does not.
        lost: What cannot be used at all, each with the reason.
        faults: What is wrong with an image that could be mended, by its number.
    """

    root: Path
    numbers: Mapping[str, int] = field(default_factory=dict)
    paths: dict[Path, None] = field(default_factory=dict)
    stated: list[tuple[int, int]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    faults: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    _rows: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, path: Path, stated: tuple[int, int], objects: Iterable[Marked]) -> None:
        """One image with its objects; one that is there already, or no file, is lost."""
        if path in self.paths or not path.is_file():
            again = path in self.paths
            self.lose(path, "is named twice" if again else "is named but there is no such file")
            return
        image = len(self.paths)
        self.paths[path] = None
        self.stated.append(stated if max(stated) < _ENDLESS else (0, 0))
        for name, box, difficult, crowd, area in objects:
            if name in self.numbers:
                self._rows.append((image, self.numbers[name], *box, difficult, crowd, area))
            else:
                self.faults[image].append(f"has the class {name!r}, which training lacks")

    def lose(self, path: Path, reason: str) -> None:
        """Say why a file cannot be used."""
        self.lost.append(f"{self.name(path)} {reason}")

    def name(self, path: Path) -> str:
        """How a file is called below the root."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def table(self) -> Table:
        """All objects as numbers, with boxes in float64."""
        rows = torch.tensor(self._rows, dtype=torch.float64).view(-1, _NUMBERS)
        image, labels, *_, difficult, crowd, areas = rows.unbind(1)
        flags = difficult.bool(), crowd.bool()
        return Table(image.long(), labels.long(), rows[:, 2:6], *flags, areas)

    def mended(self, sides: Int64[Tensor, "images 2"]) -> tuple[Table, set[int]]:
        """Objects with boxes inside their images, and the images of which nobody can tell.

        Args:
            sides: Height and width of every image; 0 × 0 for one that cannot be read.
        """
        table, stated = self.table(), torch.tensor(self.stated)
        table = table[sides[table.image].all(1)]
        factor, other = self._factors(stated, sides)
        boxes = table.boxes * factor.flip(1).repeat(1, 2)[table.image]
        limits = sides.double().flip(1).repeat(1, 2)[table.image]
        cut = torch.minimum(boxes.clamp_min(0), limits)
        number = boxes.isfinite().all(1)
        outside = number & ((cut - boxes).abs() > ROUNDING).any(1)
        extent = (cut[:, 2:] - cut[:, :2]).nan_to_num(0)
        solid = number & (extent > _THIN).all(1)
        self._note(table.image[~number], "with a corner that is no number")
        self._note(table.image[number & ~solid], "without area in the image")
        self._note(table.image[solid & outside], "partly outside of the image")
        given = table.areas * factor.prod(1)[table.image]
        own = ~given.isfinite() | outside
        areas = torch.where(own, extent.prod(1), given).float()
        flags = table.difficult, table.crowd
        return Table(table.image, table.labels, cut.float(), *flags, areas)[solid], other

    def _factors(
        self, stated: Int64[Tensor, "images 2"], sides: Int64[Tensor, "images 2"]
    ) -> tuple[Float[Tensor, "images 2"], set[int]]:
        """By what heights and widths are multiplied, and the images with another shape."""
        differs = stated.all(1) & sides.all(1) & (stated != sides).any(1)
        factor = torch.where(differs[:, None], sides / stated.double().clamp_min(1), 1)
        # Rounded to whole pixels, a resized image has its shape to within one.
        shape = (stated * factor[:, 1:] - sides).abs().amax(1) <= 1
        for i in differs.nonzero().flatten().tolist():
            drawn, shown = (f"{w} × {h}" for h, w in (self.stated[i], sides[i].tolist()))
            self.faults[i].append(f"has boxes drawn for {drawn} pixels, but {shown}")
        return factor, set((differs & ~shape).nonzero().flatten().tolist())

    def _note(self, images: Int64[Tensor, " boxes"], what: str) -> None:
        for image, count in Counter(images.tolist()).items():
            self.faults[image].append(f"has {count} {'box' if count == 1 else 'boxes'} {what}")

    def settle(self, faulty: Faulty, hopeless: set[int]) -> tuple[set[int], list[str]]:
        """Images to leave out, and what has been left out or mended, each with the reason.

        Raises:
            DataError: Anything is wrong and `faulty` is `fail`.
        """
        paths = list(self.paths)
        out = set(self.faults) if faulty == "skip" else hopeless
        said = [f"{text}: left out" for text in self.lost]
        for i, texts in sorted(self.faults.items()):
            end = "left out" if i in out else "repaired"
            said += [f"{self.name(paths[i])} {' and '.join(texts)}: {end}"]
        if faulty == "fail" and said:
            first = said[0].rpartition(": ")[0]
            raise DataError(
                f"The annotations in {self.root} are at fault for {len(said)} images or files, "
                f"first: {first}. Correct them, or set data.faulty to repair or skip."
            )
        return out, said
