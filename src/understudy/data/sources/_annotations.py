"""Annotations of one split, checked against its images: what is faulty, and how it is repaired.

The size that an annotation states is the coordinate frame of its boxes. Where the image has the
same aspect ratio but another size, it was resized after annotation, and the boxes are resized as
well. Where it has another aspect ratio, nobody can tell where the boxes lie, and the image is left
out. A stated size of 0 × 0 counts as no statement.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.data._image import SUFFIXES
from understudy.errors import DataError

Faulty = Literal["repair", "skip", "fail"]
"""Policy for faults: repair what can be repaired and leave out the rest, leave out every faulty
image, or stop."""

ROUNDING = 0.5
"""Pixels by which a box may reach outside of its image without being a fault."""
_MIN_SIDE = 0.01
"""Shorter sides of boxes count as zero: resized in float32 they could vanish, which detectors
refuse."""
_MAX_STATED = 2**31
"""Stated sides of at least so many pixels are implausible, and count as not stated."""
_COLUMNS = 9


class AnnotatedObject(NamedTuple):
    """One object as its annotation describes it."""

    name: str
    box: Sequence[float]
    """Left, top, right and bottom in pixels."""
    difficult: bool = False
    crowd: bool = False
    area: float = float("nan")
    """In pixels; NaN stands for the area of the box."""


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; none if there is no folder."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        path
        for path in entries
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


@dataclass(frozen=True)
class ObjectTable:
    """Objects of many images, one row each, sorted by image."""

    image: Int64[Tensor, " objects"]
    labels: Int64[Tensor, " objects"]
    boxes: Float[Tensor, "objects 4"]
    difficult: Bool[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]
    areas: Float[Tensor, " objects"]

    def __getitem__(self, rows: Tensor) -> "ObjectTable":
        return ObjectTable(*(column[rows] for column in self.columns()))

    def columns(self) -> tuple[Tensor, ...]:
        """Return all columns, in the order of the fields."""
        return self.image, self.labels, self.boxes, self.difficult, self.crowd, self.areas


@dataclass(frozen=True)
class Annotations:
    """Annotated images of one split, with their objects and faults.

    Attributes:
        root: Folder of the data set; errors name files relative to it.
        classes: Class names of the training split, in the order of their labels.
        paths: Image files without duplicates; image number `i` is the `i`-th.
        stated_sides: Height and width that the annotation of each image states; 0 if none.
        rejected: Files and entries that cannot be used at all, each with the reason.
        faults: Image number → faults of its annotation.
    """

    root: Path
    classes: Sequence[str] = ()
    # A dict finds a path that is listed twice, and keeps the order.
    paths: dict[Path, None] = field(default_factory=dict)
    stated_sides: list[tuple[int, int]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    faults: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    _rows: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, path: Path, sides: tuple[int, int], objects: Iterable[AnnotatedObject]) -> None:
        """Add an image with its objects; reject one that is listed twice or has no file.

        Args:
            path: Image file.
            sides: Height and width that the annotation states; 0 if none.
            objects: Objects in the image.
        """
        if path in self.paths:
            self.reject(path, "is listed twice")
            return
        if not path.is_file():
            self.reject(path, "is listed, but there is no such file")
            return
        image = len(self.paths)
        self.paths[path] = None
        self.stated_sides.append(sides if max(sides) < _MAX_STATED else (0, 0))
        for name, box, difficult, crowd, area in objects:
            if name in self._labels:
                self._rows.append((image, self._labels[name], *box, difficult, crowd, area))
            else:
                self.faults[image].append(f"has the class {name!r}, which training lacks")

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.classes)}

    def reject(self, path: Path, reason: str) -> None:
        """Record why a file cannot be used."""
        self.rejected.append(f"{self._name(path)} {reason}")

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def repaired(self, sides: Int64[Tensor, "images 2"]) -> tuple[ObjectTable, set[int]]:
        """Repair all boxes and record their faults.

        Boxes are resized with their images and clipped to them; those without area are dropped. An
        area that is unknown, or of a clipped box, becomes that of the box.

        Args:
            sides: Height and width of every image; 0 × 0 for an unreadable one.

        Returns:
            The repaired objects, and the numbers of the images whose boxes cannot be located.
        """
        table = self._table()
        table = table[sides[table.image].all(1)]
        scale, unlocatable = self._scales(torch.tensor(self.stated_sides), sides)
        # Sides are (height, width), corners (x, y, x, y).
        boxes = table.boxes * scale.flip(1).repeat(1, 2)[table.image]
        limits = sides.double().flip(1).repeat(1, 2)[table.image]
        clipped = torch.minimum(boxes.clamp_min(0), limits)
        finite = boxes.isfinite().all(1)
        outside = finite & ((clipped - boxes).abs() > ROUNDING).any(1)
        extent = (clipped[:, 2:] - clipped[:, :2]).nan_to_num(0)
        solid = finite & (extent > _MIN_SIDE).all(1)
        self._record(table.image[~finite], "with a corner that is not a number")
        self._record(table.image[finite & ~solid], "without area in the image")
        self._record(table.image[solid & outside], "partly outside of the image")
        stated_areas = table.areas * scale.prod(1)[table.image]
        use_box = ~stated_areas.isfinite() | outside
        areas = torch.where(use_box, extent.prod(1), stated_areas).float()
        flags = table.difficult, table.crowd
        repaired = ObjectTable(table.image, table.labels, clipped.float(), *flags, areas)
        return repaired[solid], unlocatable

    def _table(self) -> ObjectTable:
        """Return all objects as columns, with boxes in float64 so that scaling rounds only once."""
        rows = torch.tensor(self._rows, dtype=torch.float64).view(-1, _COLUMNS)
        image, labels, *_, difficult, crowd, areas = rows.unbind(1)
        flags = difficult.bool(), crowd.bool()
        return ObjectTable(image.long(), labels.long(), rows[:, 2:6], *flags, areas)

    def _scales(
        self, stated: Int64[Tensor, "images 2"], sides: Int64[Tensor, "images 2"]
    ) -> tuple[Float[Tensor, "images 2"], set[int]]:
        """Return scales of height and width, and the images with another aspect ratio."""
        differs = stated.all(1) & sides.all(1) & (stated != sides).any(1)
        scale = torch.where(differs[:, None], sides / stated.double().clamp_min(1), 1)
        # Resized sides are rounded to whole pixels: scaled by the width, they agree to within one.
        same_ratio = (stated * scale[:, 1:] - sides).abs().amax(1) <= 1
        for i in differs.nonzero().flatten().tolist():
            frame, actual = (f"{w} × {h}" for h, w in (self.stated_sides[i], sides[i].tolist()))
            self.faults[i].append(f"has boxes for {frame} pixels, but an image of {actual}")
        return scale, set((differs & ~same_ratio).nonzero().flatten().tolist())

    def _record(self, images: Int64[Tensor, " boxes"], fault: str) -> None:
        """Record a fault of boxes, one line for each of their images."""
        for image, count in Counter(images.tolist()).items():
            self.faults[image].append(f"has {count} {'box' if count == 1 else 'boxes'} {fault}")

    def apply_policy(self, faulty: Faulty, unlocatable: set[int]) -> tuple[set[int], list[str]]:
        """Apply the policy for faults.

        Returns:
            Numbers of the images to leave out, and a line for everything that is rejected, left out
            or repaired, each with the reason.

        Raises:
            DataError: There is any fault and `faulty` is `fail`.
        """
        paths = list(self.paths)
        left_out = set(self.faults) if faulty == "skip" else unlocatable
        lines = [f"{reason}: left out" for reason in self.rejected]
        for i, faults in sorted(self.faults.items()):
            outcome = "left out" if i in left_out else "repaired"
            lines.append(f"{self._name(paths[i])} {' and '.join(faults)}: {outcome}")
        if faulty == "fail" and lines:
            first = lines[0].rpartition(": ")[0]
            raise DataError(
                f"The annotations in {self.root} are faulty for {len(lines)} images or files, "
                f"first: {first}. Correct them, or set data.faulty to repair or skip."
            )
        return left_out, lines
