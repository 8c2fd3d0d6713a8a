"""Images with boxes in text files, as for YOLO: a data.yaml, and labels/a.txt for images/a.jpg.

The root is the file that describes the data set, or the folder that holds it as `data.yaml`,
`dataset.yaml` or its only YAML file:

    path: .                        folder that the next lines are relative to; default: the file's
    train: images/train            a folder, a list of images (.txt), or several in brackets
    val: images/val                also `valid` or `validation`
    test: images/test
    names: [cat, dog]              or {0: cat, 1: dog}

Without `test`, `val` is the test split; beside it, the validation split. All files are inside of
the folder of the YAML file; a `path` that does not exist there is ignored.

The labels of `…/images/…/a.jpg` are in `…/labels/…/a.txt` (the last folder `images` counts), and
without such a folder beside the image. Each line is one object: the number of its class, then
centre x, centre y, width and height of its box in shares of the image's sides; or three or more
corners of a polygon, whose bounding box is taken. With `kpt_shape` in the YAML file, keypoints
follow the box, and are ignored. An image without a label file has no object (format:
docs.ultralytics.com/datasets/detect).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._annotated import Difficult, annotated_source
from understudy.data.sources._annotations import AnnotatedObject, Annotations, Faulty
from understudy.data.sources._splits import choose
from understudy.data.sources._values import key, number, numbers
from understudy.data.sources._yolo_files import SplitImages, YoloData, read
from understudy.errors import DataError

SPLITS = ("train", "validation", "test")
_LARGEST_SHARE = 2.0
"""Larger numbers are pixels."""
_LARGEST_CORNER = 1.5
"""Corners of polygons are clipped to the image up to here; keypoints have a 2 for `visible`."""


def load(
    root: str,
    split: Split,
    *,
    unreadable: Unreadable = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
) -> Source:
    """Load the images of one split, sorted by path, or in the order of their list.

    Raises:
        DataError: There is no such file or split, no image can be used, or something is faulty and
            `unreadable` or `faulty` is `fail`.
    """
    described = read(root)
    images = described.images(split)
    annotations = Annotations(described.top, described.classes, shares=True, form="centre")
    annotations.rejected.extend(images.skipped)
    labels = {path: _label_files(path, described.top) for path in images.paths}
    if not any(labels.values()):
        first = images.paths[0]
        raise DataError(
            f"None of the {len(images.paths)} images of the split {split!r} in {described.file} "
            f"has a label file, such as {_candidates(first, described.top)[0]} for {first.name}; "
            "put the label files there."
        )
    owners, used = dict[Path, Path](), set[object]()
    for path, files in labels.items():
        owner = owners.setdefault(files[0], path) if files else path
        if owner != path:
            annotations.reject(path, f"shares {files[0].name} with {owner.name}")
        else:
            used |= _add(annotations, path, files, described)
    _refuse_numbers_from_one(described, used)
    _reject_unused(annotations, images)
    source = annotated_source(
        annotations,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )
    source.split_name = choose(split, described.entries) or split
    return source


def _candidates(image: Path, top: Path) -> list[Path]:
    """Return the places where the labels of an image may be, the likelier first."""
    beside = image.with_suffix(".txt")
    if not image.is_relative_to(top):
        return [beside]
    parts = list(image.relative_to(top).parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if not folders:
        return [beside]
    same_case = {"images": "labels", "Images": "Labels", "IMAGES": "LABELS"}
    parts[folders[-1]] = same_case.get(parts[folders[-1]], "labels")
    return [top.joinpath(*parts).with_suffix(".txt"), beside]


def _label_files(image: Path, top: Path) -> list[Path]:
    # Also a link to nothing, which reading says: without it the image would be background.
    return [path for path in _candidates(image, top) if os.path.lexists(path)]


def _add(
    annotations: Annotations, image: Path, labels: Sequence[Path], described: YoloData
) -> set[object]:
    """Add an image with the objects of its label file; return the numbers of their classes."""
    used = set[object]()
    if not labels:
        annotations.add(image, (0, 0), ())
    for file in labels:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            annotations.reject(image, f"has a label file that cannot be read ({error})")
            continue
        rows = [line.split() for line in lines if line.strip()]
        used |= {key(number(row[0])) for row in rows}
        annotations.add(image, (0, 0), (_object(row, described) for row in rows))
    return used


def _refuse_numbers_from_one(described: YoloData, used: set[object]) -> None:
    """Refuse label files that count classes from 1, of which all but the last would be another."""
    if 0 not in used and len(described.classes) in used:
        raise DataError(
            f"The label files of {described.file} number {len(described.classes)} classes from 1: "
            f"none has the class 0, and some have {len(described.classes)}. Number them from 0."
        )


def _object(values: Sequence[str], described: YoloData) -> AnnotatedObject:
    """Return the object of one line; its box is in shares of the image's sides."""
    classes, shares = described.classes, values[1:]
    # Some programs write the number of a class as a fraction, 1.0.
    label = key(number(values[0]))
    if not isinstance(label, int):
        return _faulty(f"object with the class {values[0][:40]!r}, which is no number")
    if not 0 <= label < len(classes):
        fault = f"object with the class {label}, but names are 0 to {len(classes) - 1}"
        return _faulty(fault, f"number {label}")
    if described.keypoints and len(shares) == 4 + described.keypoints:
        shares = shares[:4]
    elif described.keypoints or len(shares) % 2 or len(shares) < 4:
        return _faulty(f"object with {len(values)} values in its line", classes[label])
    name, (coordinates, fault) = classes[label], numbers(shares)
    if fault:
        return _faulty(fault, name)
    if max(map(abs, coordinates)) > _LARGEST_SHARE:
        return _faulty("box in pixels instead of shares of the image's sides", name)
    if len(coordinates) > 4 and max(coordinates) > _LARGEST_CORNER:
        return _faulty(
            "object whose polygon leaves its image (keypoints need kpt_shape in the YAML file)",
            name,
        )
    return AnnotatedObject(name, _box(coordinates))


def _faulty(fault: str, name: str = "") -> AnnotatedObject:
    return AnnotatedObject(name, (0, 0, 0, 0), fault=fault)


def _box(shares: Sequence[float]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of centre and sides, or of the corners of a polygon."""
    if len(shares) == 4:
        x, y, width, height = shares
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    across, down = shares[::2], shares[1::2]
    return min(across), min(down), max(across), max(down)


def _reject_unused(annotations: Annotations, images: SplitImages) -> None:
    """Reject the label files in a split's folders that have no image."""
    stems = dict[Path, set[str]]()
    for path in images.paths:
        labels = _candidates(path, annotations.root)[0]
        # A list may leave out images; text files beside images may be anything.
        is_of_folder = any(folder in path.parents for folder in images.folders)
        if is_of_folder and labels.parent != path.parent:
            stems.setdefault(labels.parent, {"classes"}).add(labels.stem)
    for folder, known in sorted(stems.items()):
        if others := sorted(file.name for file in folder.glob("*.txt") if file.stem not in known):
            annotations.reject(
                folder, f"has {len(others)} label files without image, first: {others[0]}"
            )
