"""Annotations of one split, checked against its images: what is faulty, and how it is repaired.

The size that an annotation states is the coordinate frame of its boxes. Where the image has the
same aspect ratio but another size, it was resized after annotation, and the boxes are resized as
well. Where it has another aspect ratio, nobody can tell where the boxes lie, and the image is left
out. A stated size of 0 × 0 counts as no statement.

An image of which no box can be used is left out: as background it would teach that nothing is
there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from understudy.data._image import SUFFIXES, is_turned
from understudy.data.class_names import positions
from understudy.data.sources._box_forms import ROUNDING, refuse_corners
from understudy.data.sources._named_files import is_file
from understudy.errors import DataError

Faulty = Literal["repair", "skip", "fail"]
"""Policy for faults: repair what can be repaired and leave out the rest, leave out every faulty
image, or stop."""

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
    """Left, top, right and bottom in pixels; a tuple, so that objects can be compared."""
    difficult: bool = False
    crowd: bool = False
    area: float = float("nan")
    """In pixels; NaN stands for the area of the box."""
    fault: str = ""
    """Why the object cannot be used, as in `box without area`; empty if it can."""


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
class Repaired:
    """What remains of the annotations of a split.

    Attributes:
        objects: The repaired objects.
        dropped: Image and class of every object that was dropped, if its class is known: that the
            class is absent cannot be said.
        unusable: Numbers of the images that cannot be used: their boxes cannot be located, or none
            of them is left.
    """

    objects: ObjectTable
    dropped: Int64[Tensor, "dropped 2"]
    unusable: set[int]


@dataclass(frozen=True)
class Annotations:
    """Annotated images of one split, with their objects and faults.

    Attributes:
        root: Folder of the data set; errors name files relative to it.
        classes: Class names of the training split, in the order of their labels.
        shares: True if boxes are in shares of the image's sides, not in pixels.
        form: How the format writes boxes, one of `FORMS`; "" for two corners.
        paths: Image files, each with its number.
        stated_sides: Height and width that the annotation of each image states; 0 if none.
        rejected: Files and entries that cannot be used at all, each with the reason.
        faults: Image number → faults of its annotation.
    """

    root: Path
    classes: Sequence[str] = ()
    shares: bool = False
    form: str = ""
    paths: dict[Path, int] = field(default_factory=dict)
    stated_sides: list[tuple[int, int]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    faults: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    _objects: list[tuple[AnnotatedObject, ...]] = field(default_factory=list)
    _contradictory: set[int] = field(default_factory=set)
    _dropped: list[list[int]] = field(default_factory=list)

    def add(
        self,
        path: Path,
        sides: tuple[int, int],
        objects: Iterable[AnnotatedObject],
        faults: Sequence[str] = (),
    ) -> None:
        """Add an image with its objects; reject one that has no file.

        Of an image that is listed twice, the objects of one entry are taken if the other has none
        or the same, else the image is left out.

        Args:
            path: Image file.
            sides: Height and width that the annotation states; 0 if none.
            objects: Objects in the image.
            faults: What is wrong with the annotation without making an object useless.
        """
        if path in self.paths:
            self._add_again(self.paths[path], path, tuple(objects))
            return
        if not is_file(path):
            self.reject(path, "is listed, but there is no such file")
            return
        image = self.paths[path] = len(self.paths)
        self.stated_sides.append(sides if 0 < min(sides) <= max(sides) < _MAX_STATED else (0, 0))
        self._objects.append(tuple(objects))
        if faults:
            self.faults[image] += faults

    def _add_again(self, image: int, path: Path, objects: tuple[AnnotatedObject, ...]) -> None:
        earlier = self._objects[image]
        if not objects or not earlier or set(objects) == set(earlier):
            self.reject(path, "is listed twice")
            self._objects[image] = earlier or objects
        elif image not in self._contradictory:
            self._contradictory.add(image)
            self.faults[image].append("has two annotations that differ")

    @cached_property
    def _labels(self) -> dict[str, int | None]:
        """Class name → label; names that are met are added, None for those training lacks."""
        return {name: label for label, name in enumerate(self.classes)}

    def _label(self, name: str) -> int | None:
        """Return the label of a class, whose name may be spelled a little differently."""
        if name not in self._labels:
            self._labels[name] = next(iter(positions([name], self.classes) or ()), None)
        return self._labels[name]

    def reject(self, path: Path, reason: str) -> None:
        """Record why a file cannot be used."""
        self.rejected.append(f"{self._name(path)} {reason}")

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def repaired(self, sides: Int64[Tensor, "images 2"]) -> Repaired:
        """Repair all boxes and record their faults.

        Corners in the wrong order are swapped. Boxes are resized with their images and clipped to
        them; those without area are dropped, and so is an object that is listed twice. An area that
        is unknown, or of a clipped box, becomes that of the box.

        Args:
            sides: Height and width of every image; 0 × 0 for an unreadable one.

        Raises:
            DataError: The boxes are written in another form than the format says.
        """
        readable = sides.all(1)
        table = self._table()
        table = table[readable[table.image]]
        scale, unusable = self._scales(torch.tensor(self.stated_sides).view(-1, 2), sides)
        # Sides are (height, width), corners (x, y, x, y).
        to_pixels = scale.flip(1).repeat(1, 2)[table.image]
        limits = sides.double().flip(1).repeat(1, 2)[table.image]
        if self.form:
            refuse_corners(table.boxes * to_pixels, limits, self.form, self.root)
        boxes = self._ordered(table) * to_pixels
        unusable |= self._turned(table.image, boxes, limits)
        clipped = torch.minimum(boxes.clamp_min(0), limits)
        finite = boxes.isfinite().all(1)
        outside = finite & ((clipped - boxes).abs() > ROUNDING).any(1)
        extent = (clipped[:, 2:] - clipped[:, :2]).nan_to_num(0)
        area = finite & (extent > _MIN_SIDE).all(1)
        # A box of at most one pixel at the origin is none.
        shares = area & (table.boxes <= 1).all(1) & (limits > 2).all(1) & (not self.shares)
        solid = area & ~shares
        doubled = _doubled(table, boxes) & solid
        self._record(table.image[~finite], "box with a corner that is not a number")
        self._record(table.image[shares], "box in shares of the image's sides instead of pixels")
        self._record(table.image[finite & ~area], "box without area in the image")
        self._record(table.image[solid & outside], "box partly outside of the image")
        self._record(table.image[doubled], "box listed twice")
        stated_areas = table.areas * scale.prod(1)[table.image]
        use_box = ~stated_areas.isfinite() | (stated_areas <= 0) | outside
        areas = torch.where(use_box, extent.prod(1), stated_areas).float()
        flags = table.difficult, table.crowd
        repaired = ObjectTable(table.image, table.labels, clipped.float(), *flags, areas)
        repaired = repaired[solid & ~doubled]
        lost = torch.stack([table.image, table.labels], 1)[~solid].tolist() + self._dropped
        return Repaired(
            repaired,
            torch.tensor(lost, dtype=torch.int64).view(-1, 2),
            unusable | self._contradictory | self._emptied(repaired, readable),
        )

    def _table(self) -> ObjectTable:
        """Return all objects as columns, with boxes in float64 so that scaling rounds only once."""
        rows = torch.tensor(list(self._rows()), dtype=torch.float64).view(-1, _COLUMNS)
        image, labels, *_, difficult, crowd, areas = rows.unbind(1)
        flags = difficult.bool(), crowd.bool()
        return ObjectTable(image.long(), labels.long(), rows[:, 2:6], *flags, areas)

    def _rows(self) -> Iterator[tuple[float, ...]]:
        """Yield a row for every object that can be used; record the faults of the others."""
        for image, objects in enumerate(self._objects):
            for name, box, difficult, crowd, area, fault in objects:
                label = self._label(name)
                if fault:
                    # An object without a name may be of any class.
                    labels = range(len(self.classes)) if not name else [label]
                    self._dropped.extend([image, each] for each in labels if each is not None)
                elif label is None:
                    self.faults[image].append(f"has the class {name!r}, which training lacks")
                else:
                    yield image, label, *box, difficult, crowd, area
            for fault, count in Counter(each.fault for each in objects if each.fault).items():
                self.faults[image].append(f"has {_counted(count, fault)}")

    def _ordered(self, table: ObjectTable) -> Float[Tensor, "objects 4"]:
        """Return the boxes with the smaller corner first."""
        first, second = table.boxes[:, :2], table.boxes[:, 2:]
        self._record(table.image[(first > second).any(1)], "box with corners in the wrong order")
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)

    def _scales(
        self, stated: Int64[Tensor, "images 2"], sides: Int64[Tensor, "images 2"]
    ) -> tuple[Float[Tensor, "images 2"], set[int]]:
        """Return scales of height and width, and the images with another aspect ratio."""
        if self.shares:
            return sides.double(), set()
        differs = stated.all(1) & sides.all(1) & (stated != sides).any(1)
        scale = torch.where(differs[:, None], sides / stated.double().clamp_min(1), 1)
        # Resized sides are rounded to whole pixels: scaled by the width, they agree to within one.
        same_ratio = (stated * scale[:, 1:] - sides).abs().amax(1) <= 1
        paths, turned = list(self.paths), set[int]()
        for i in differs.nonzero().flatten().tolist():
            frame, actual = (f"{w} × {h}" for h, w in (self.stated_sides[i], sides[i].tolist()))
            drawn = ""
            if self.stated_sides[i] == tuple(sides[i].tolist()[::-1]) and is_turned(paths[i]):
                turned.add(i)
                drawn = (
                    ", drawn before the rotation that its EXIF asks for (turn the boxes, or remove "
                    "the orientation from its EXIF)"
                )
            self.faults[i].append(f"has boxes for {frame} pixels{drawn}, but an image of {actual}")
        return scale, set((differs & ~same_ratio).nonzero().flatten().tolist()) | turned

    def _turned(
        self,
        image: Int64[Tensor, " objects"],
        boxes: Float[Tensor, "objects 4"],
        limits: Float[Tensor, "objects 4"],
    ) -> set[int]:
        """Return the images without a stated size whose boxes fit them only before EXIF's turn."""
        fits = (boxes <= limits + ROUNDING).all(1)
        fits_turned = (boxes <= limits[:, [1, 0, 3, 2]] + ROUNDING).all(1)
        candidates = set(image[~fits & fits_turned].tolist()) - set(image[~fits_turned].tolist())
        paths, turned = list(self.paths), set[int]()
        for i in sorted(candidates):
            if not any(self.stated_sides[i]) and not self.shares and is_turned(paths[i]):
                turned.add(i)
                self.faults[i].append(
                    "has boxes that fit it only before the rotation that its EXIF asks for (turn "
                    "the boxes, or remove the orientation from its EXIF)"
                )
        return turned

    def _emptied(self, table: ObjectTable, readable: Bool[Tensor, " images"]) -> set[int]:
        """Return the readable images that had objects of which none is left, and say so."""
        left = set(table.image.tolist())
        emptied = {
            i
            for i, objects in enumerate(self._objects)
            if objects and i not in left and readable[i]
        }
        for i in emptied:
            self.faults[i].append("has no other box")
        return emptied

    def _record(self, images: Int64[Tensor, " boxes"], fault: str) -> None:
        """Record a fault of boxes, one line for each of their images."""
        for image, count in Counter(images.tolist()).items():
            self.faults[image].append(f"has {_counted(count, fault)}")

    def apply_policy(self, faulty: Faulty, unusable: set[int]) -> tuple[set[int], list[str]]:
        """Apply the policy for faults.

        Args:
            faulty: The policy.
            unusable: Numbers of the images that cannot be repaired.

        Returns:
            Numbers of the images to leave out, and a line for everything that is rejected, left out
            or repaired, each with the reason.

        Raises:
            DataError: There is any fault and `faulty` is `fail`.
        """
        paths = list(self.paths)
        left_out = set(self.faults) if faulty == "skip" else unusable
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


def _counted(count: int, fault: str) -> str:
    """Return a fault that begins with `box` or `object` with its number: `2 boxes without area`."""
    noun, _, rest = fault.partition(" ")
    plural = {"box": "boxes", "object": "objects"}
    return f"{count} {noun if count == 1 else plural[noun]} {rest}"


def _doubled(table: ObjectTable, boxes: Float[Tensor, "objects 4"]) -> Bool[Tensor, " objects"]:
    """Return True for each object whose box and class another object of its image has.

    The first that is neither difficult nor a crowd is kept, else the first.
    """
    flags = table.difficult.long() + table.crowd.long()
    same = torch.cat([torch.stack([table.image, table.labels], 1).double(), boxes], 1).numpy()
    order = np.lexsort((flags.numpy(), *same.T[::-1]))
    ordered = same[order]
    doubled = np.zeros(len(same), dtype=bool)
    doubled[order[1:]] = (ordered[1:] == ordered[:-1]).all(1)
    return torch.from_numpy(doubled)
