"""What a program's dataset tells of its images: a class, several classes, or boxes.

| target | meaning |
|---|---|
| a whole number, also as an array or tensor of one | class, from 0; -1 is no label |
| a text | name of a class |
| a vector of 1, 0 and -1 | presence of every class: present, absent, not known |
| a mapping with `boxes` and `labels`, perhaps `iscrowd`, `area` | objects, see below |
| None, or nothing | no label |

Boxes are those of torchvision's detectors: (objects, 4), left, top, right and bottom in pixels, and
their labels count from 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from understudy.batch import UNLABELLED
from understudy.data.class_names import check as check_classes
from understudy.data.sources._annotations import ObjectTable
from understudy.data.sources._numbered import labels_of, names_of
from understudy.errors import DataError

_LEAST_SIDE = 0.01
"""Shorter sides of boxes count as zero, as in files."""
_BACKGROUND = ("__background__", "background")


@dataclass(frozen=True)
class Targets:
    """Targets of the images of a split, checked.

    Attributes:
        labels: Class of each image that is kept, or a row for several classes.
        kept: Numbers of the images that are kept.
        objects: Boxes; None if there are none.
        skipped: Objects and images that were repaired or left out, each with the reason.
    """

    labels: Int64[Tensor, "kept ..."]
    kept: Int64[Tensor, " kept"]
    objects: ObjectTable | None = None
    skipped: list[str] = field(default_factory=list)


def class_names_of(
    known: Sequence[tuple[str, ...]], targets: Sequence[Sequence[Any]], expected: Sequence[str]
) -> tuple[str, ...]:
    """Return the class names of all splits together.

    Args:
        known: Names that the datasets have.
        targets: Targets of the images of each split.
        expected: Names to use where the datasets have none and the targets fit.

    Raises:
        DataError: Two datasets name their classes differently, or targets are of several kinds.
    """
    everything = [target for of_split in targets for target in of_split]
    kind = _kind(everything)
    names = [each[1:] if _starts_with_background(each, kind) else each for each in known]
    for others in names[1:]:
        check_classes(others, names[0], of="training split", advice="give both the same classes")
    if names:
        return tuple(names[0])
    own = _own_names(everything, kind)
    fits = len(own) <= len(expected) and (kind != "name" or set(own) <= set(expected))
    return tuple(expected) if own and fits else own


def read_targets(
    targets: Sequence[Any],
    names: tuple[str, ...],
    sides: Int64[Tensor, "images 2"],
    faulty: str,
    *,
    of: str,
) -> Targets:
    """Return the targets of the images of one split as numbers.

    Args:
        targets: As the dataset gives them.
        names: Names of the classes.
        sides: Height and width of every image.
        faulty: `repair` or drop faulty boxes, `skip` their images, or `fail`.
        of: What errors call the split.

    Raises:
        DataError: A target is none of the forms of this module, or names no class.
    """
    kind, every = _kind(targets), torch.arange(len(targets))
    if kind == "objects":
        return _objects(targets, names, sides, faulty, of)
    if kind == "several":
        return Targets(_rows(targets, names, of), every)
    if kind == "name":
        position = {name: i for i, name in enumerate(names)}
        unknown = next((t for t in targets if t is not None and t not in position), None)
        if unknown is not None:
            raise DataError(
                f"{of} has the class {unknown!r}, which is none of: {', '.join(names)}."
            )
        labels = [UNLABELLED if t is None else position[t] for t in targets]
        return Targets(torch.tensor(labels), every)
    return Targets(torch.tensor(_numbers(targets, names, of)), every)


def _kind(targets: Sequence[Any]) -> str:
    """Return `number`, `name`, `several` or `objects`; `none` if no image has a target."""
    kinds = {_kind_of(target): target for target in targets if target is not None}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise DataError(
            f"The targets of data= are of several kinds, such as {_short(first)} and "
            f"{_short(second)}: give each image a class, a row of classes, or boxes."
        )
    return next(iter(kinds), "none")


def _kind_of(target: Any) -> str:
    if isinstance(target, str):
        return "name"
    if isinstance(target, Mapping):
        if {"boxes", "labels"} <= set(target):
            return "objects"
        raise DataError(
            f"A target of data= is a mapping with {', '.join(map(str, target))}; for detection it "
            "must have 'boxes' and 'labels', as torchvision's detectors take them."
        )
    try:
        array = np.asarray(target)
    except Exception as error:
        raise _no_target(target) from error
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise _no_target(target)
    return "number" if array.size == 1 else "several"


def _no_target(target: Any) -> DataError:
    return DataError(
        f"A target of data= is {_short(target)}; it must be a whole number, a name, a vector of 1 "
        "and 0, or a mapping with 'boxes' and 'labels'."
    )


def _own_names(targets: Sequence[Any], kind: str) -> tuple[str, ...]:
    """Return class names by the targets alone."""
    if kind == "name":
        return tuple(sorted({target for target in targets if target}))
    if kind == "several":
        return tuple(map(str, range(np.asarray(next(t for t in targets if t is not None)).size)))
    if kind == "objects":
        most = max((int(x) for t in targets if t for x in _integers(t["labels"])), default=0)
        return tuple(str(number) for number in range(1, most + 1))
    numbers = [_whole(target) for target in targets if target is not None]
    if numbers and min(numbers) < UNLABELLED:
        raise DataError(f"data= has the label {min(numbers)}; class numbers start from 0.")
    return tuple(names_of(numbers))


def _starts_with_background(names: Sequence[str], kind: str) -> bool:
    return kind == "objects" and names[0].lower() in _BACKGROUND


def _numbers(targets: Sequence[Any], names: tuple[str, ...], of: str) -> list[int]:
    numbers = [UNLABELLED if target is None else _whole(target) for target in targets]
    if all(name.isdecimal() for name in names):
        known = {int(name) for name in names} | {UNLABELLED}
        if set(numbers) <= known:
            return labels_of(numbers, names)
    outside = next((n for n in numbers if not UNLABELLED <= n < len(names)), None)
    if outside is not None:
        raise DataError(
            f"{of} has the label {outside}, but {len(names)} classes ({', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}): labels are from 0 to {len(names) - 1}, or -1."
        )
    return numbers


def _whole(target: Any) -> int:
    value = float(np.asarray(target).reshape(()))
    if not value.is_integer():
        raise DataError(f"data= has the label {value:g}; labels are whole numbers from 0.")
    return int(value)


def _rows(targets: Sequence[Any], names: tuple[str, ...], of: str) -> Int64[Tensor, "images k"]:
    rows = torch.full((len(targets), len(names)), UNLABELLED)
    for number, target in enumerate(targets):
        if target is None:
            continue
        values = np.asarray(target).astype(np.float64)
        if values.size != len(names) or not np.isin(values, (-1, 0, 1)).all():
            raise DataError(
                f"The target of image {number} of {of} is {_short(target)}; it must be "
                f"{len(names)} values of 1 (present), 0 (absent) or -1 (not known)."
            )
        rows[number] = torch.from_numpy(values).long()
    if (rows == UNLABELLED).any() and not (rows == 0).any():
        raise DataError(f"The targets of {of} hold 1 and -1 alone; give 0 for an absent class.")
    return rows


def _objects(
    targets: Sequence[Any],
    names: tuple[str, ...],
    sides: Int64[Tensor, "images 2"],
    faulty: str,
    of: str,
) -> Targets:
    kept, parts, skipped = list[int](), list[dict[str, Tensor]](), list[str]()
    for number, target in enumerate(targets):
        if target is None:
            raise DataError(f"Image {number} of {of} has no boxes: give empty ones if so it is.")
        objects, repairs = _of_image(target, names, sides[number].tolist(), f"image {number} {of}")
        if repairs and faulty == "fail":
            raise DataError(f"{repairs[0]}. Correct it, or set data.faulty to repair.")
        skipped += repairs
        emptied = not len(objects["boxes"]) and len(target["boxes"])
        if repairs and (faulty == "skip" or emptied):
            skipped.append(f"image {number} of {of} left out for its boxes")
            continue
        kept.append(number)
        parts.append(objects)
    if not kept:
        raise DataError(f"None of the images of {of} can be used with its boxes: {skipped[0]}.")
    image = torch.arange(len(kept)).repeat_interleave(
        torch.tensor([len(p["boxes"]) for p in parts])
    )
    columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    table = ObjectTable(
        image,
        columns["labels"],
        columns["boxes"],
        torch.zeros(len(image), dtype=torch.bool),
        columns["crowd"],
        columns["areas"],
    )
    labels = torch.zeros(len(kept), len(names), dtype=torch.int64)
    labels[image, table.labels] = 1
    return Targets(labels, torch.tensor(kept), table, skipped)


def _of_image(
    target: Mapping[str, Any], names: tuple[str, ...], sides: list[int], what: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the objects of an image, boxes clipped and faulty ones left out, and what was done."""
    boxes = torch.as_tensor(np.asarray(target["boxes"], dtype=np.float32)).reshape(-1, 4)
    numbers = torch.tensor(_integers(target["labels"]), dtype=torch.int64)
    if len(numbers) != len(boxes):
        raise DataError(f"{what} has {len(boxes)} boxes and {len(numbers)} labels.")
    if len(numbers) and not 1 <= int(numbers.min()) <= int(numbers.max()) <= len(names):
        raise DataError(
            f"{what} has the labels {int(numbers.min())} to {int(numbers.max())}; as in "
            f"torchvision they are from 1 to {len(names)} ({', '.join(names[:5])}), and 0 is the "
            "background."
        )
    if not torch.isfinite(boxes).all():
        raise DataError(f"{what} has a box with a corner that is no finite number.")
    height, width = sides
    corners = torch.tensor([width, height, width, height], dtype=torch.float32)
    inside = torch.minimum(boxes.clamp_min(0), corners)
    whole = ((inside[:, 2:] - inside[:, :2]) >= _LEAST_SIDE).all(1)
    lines = []
    if not torch.equal(inside, boxes):
        lines.append(f"{what}: boxes beyond its border were clipped")
    if not whole.all():
        lines.append(f"{what}: {int((~whole).sum())} boxes without area were left out")
    spans = (inside[:, 2:] - inside[:, :2]).prod(1)
    areas = torch.as_tensor(np.asarray(target.get("area", spans), dtype=np.float32)).reshape(-1)
    crowd = torch.as_tensor(np.asarray(target.get("iscrowd", np.zeros(len(boxes))))).reshape(-1)
    columns = {
        "labels": numbers - 1,
        "boxes": inside,
        "crowd": crowd.bool(),
        "areas": areas,
    }
    return {name: column[whole] for name, column in columns.items()}, lines


def _integers(values: Any) -> list[int]:
    integers: list[int] = np.asarray(values).reshape(-1).astype(np.int64).tolist()
    return integers


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"
