"""Images with boxes in one JSON file for each split, as in COCO.

The root holds one of

    annotations/instances_train*.json, annotations/instances_test*.json, and the images in a folder
        called like the split (`train2017`), there or in `images/`, or else in `images/`,
        `JPEGImages/` or the root itself
    train/_annotations.coco.json, test/_annotations.coco.json, each with its images beside it

The test split may also be called `val`, `valid` or `validation`. The classes are those of the
training file by their number, whatever gaps there are between the numbers; the test file's are
found by name. Regions of many objects (`iscrowd`) count as present.
"""

import json
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

from understudy.data.source import Source
from understudy.data.sources._annotated import Difficult, annotated
from understudy.data.sources._annotations import Faulty, Listing, Marked, images_in
from understudy.data.sources._splits import TEST_NAMES, existing, no_test_split
from understudy.errors import DataError

_BESIDE = "_annotations.coco.json"
_NEEDED = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}


def load(
    root: str,
    split: Literal["train", "test"],
    *,
    unreadable: Literal["skip", "fail"] = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Load the images of one split, in the order of its file.

    With `classes`, the class names of the training split, its file is not parsed for them.

    Raises:
        DataError: There is no such split, its file is not as COCO's, nothing in it can be used, or
            something in it is at fault and `unreadable` or `faulty` is `fail`.
    """
    top = existing(root, "a folder as COCO's")
    file = _file(top, split)
    content = _read(file)
    if classes is None:
        training = _file(top, "train")
        names = _names(training, content if file == training else _read(training))
        classes = tuple(names.values())
    listing = Listing(top, {name: label for label, name in enumerate(classes)})
    folder = _folder(top, file, content)
    _fill(listing, content, folder, file)
    _unlisted(listing, content, folder, file)
    return annotated(
        listing, train=split == "train", unreadable=unreadable, faulty=faulty, difficult=difficult
    )


def _file(top: Path, split: Literal["train", "test"]) -> Path:
    """The JSON file of a split."""
    for name in ("train",) if split == "train" else TEST_NAMES:
        given = [*(top / "annotations").glob("*.json"), *top.glob(f"{name}/{_BESIDE}")]
        fits = re.compile(rf"instances_{name}\d*\.json|{_BESIDE}").fullmatch
        found = [each for each in given if fits(each.name)]
        if len(found) > 1:
            several = " and ".join(sorted(str(each.relative_to(top)) for each in found))
            raise DataError(f"{top} has {several}: keep one file for the split {split!r}.")
        if found:
            return found[0]
    if split == "test":
        raise no_test_split(str(top))
    raise DataError(
        f"{top} has neither annotations/instances_train*.json nor train/{_BESIDE}; set data.root "
        "to a folder as COCO's."
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}.") from error
    for key, needed in _NEEDED.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(_has(each, needed) for each in entries):
            with_ = f" with {' and '.join(needed)}" if needed else ""
            raise DataError(f"{file} has no list {key!r} of entries{with_}, as COCO's files have.")
    return dict(content)


def _has(entry: Any, needed: Sequence[str]) -> bool:
    there = isinstance(entry, dict) and all(key in entry for key in needed)
    return there and isinstance(entry.get("id"), Hashable)


def _names(file: Path, content: Mapping[str, Any]) -> dict[Any, str]:
    """Number → name of every class, by number."""
    found = {each["id"]: str(each["name"]) for each in content["categories"]}
    names, count = set(found.values()), len(content["categories"])
    if len(names) < count or not all(isinstance(number, int) for number in found):
        raise DataError(
            f"The {count} categories in {file} have {len(names)} names and {len(found)} numbers; "
            "give each a name and a whole number of its own."
        )
    return dict(sorted(found.items()))


def _folder(top: Path, file: Path, content: Mapping[str, Any]) -> Path:
    """Where the images of a file are: the first place that has one of them."""
    if file.name == _BESIDE:
        return file.parent
    places = [top / inner / name for name in _own(file) for inner in ("", "images")]
    places += [top / "images", top / "JPEGImages", top]
    for place in places:
        if any((place / str(each.get("file_name"))).is_file() for each in content["images"]):
            return place
    raise DataError(
        f"None of the {len(content['images'])} images in {file} is there; put them into "
        f"{places[0]}."
    )


def _fill(listing: Listing, content: Mapping[str, Any], folder: Path, file: Path) -> None:
    """Put all images of a file with their objects into the listing."""
    names, objects = _names(file, content), defaultdict(list)
    for each in content["annotations"]:
        objects[_key(each.get("image_id"))].append(_marked(each, names))
    numbers = set()
    for each in content["images"]:
        path = folder / str(each["file_name"])
        if each["id"] in numbers:
            listing.lose(path, f"has another image's number, {each['id']}")
            continue
        numbers.add(each["id"])
        height, width = (int(_number(each.get(side), 0)) for side in ("height", "width"))
        listing.add(path, (height, width), objects.pop(each["id"], ()))
    if objects:
        count = sum(map(len, objects.values()))
        listing.lose(file, f"has {count} objects in images that it does not list")


def _unlisted(listing: Listing, content: Mapping[str, Any], folder: Path, file: Path) -> None:
    """Name the images beside those of a split; a folder of several splits has many."""
    if file.name != _BESIDE and folder.name not in _own(file):
        return
    listed = {folder / str(each["file_name"]) for each in content["images"]}
    if others := [path for path in images_in(folder) if path not in listed]:
        first = others[0].name
        listing.lose(folder, f"has {len(others)} images not in {file.name}, first: {first}")


def _own(file: Path) -> tuple[str, str]:
    """Names that the folder of a file's images may have: `train2017`, `train`."""
    name = file.stem.removeprefix("instances_")
    return name, name.rstrip("0123456789")


def _marked(each: Mapping[str, Any], names: Mapping[Any, str]) -> Marked:
    box, number = each.get("bbox"), _key(each.get("category_id"))
    corners = box if isinstance(box, list) and len(box) == 4 else [nan] * 4
    left, top, width, height = (_number(x, nan) for x in corners)
    return Marked(
        name=names.get(number, f"number {number}"),
        box=(left, top, left + width, top + height),
        crowd=bool(each.get("iscrowd")),
        area=_number(each.get("area"), nan),
    )


def _key(number: Any) -> Hashable:
    """What may be the number of an image or of a class as it is; lists and the like as text."""
    return number if isinstance(number, Hashable) else str(number)


def _number(x: Any, otherwise: float) -> float:
    """A finite number as it is."""
    return x if isinstance(x, int | float) and isfinite(x) else otherwise
