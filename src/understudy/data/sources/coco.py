"""Images with boxes in one JSON file for each split, as in COCO.

The root holds one of

    annotations/instances_train*.json, annotations/instances_test*.json, and the images in a folder
        called like the split (`train2017`), there or in `images/`, or else in `images/`,
        `JPEGImages/` or the root itself
    train/_annotations.coco.json, test/_annotations.coco.json, each with its images beside it

The test split may also be called `val`, `valid` or `validation`. The classes are the categories of
the training file in the order of their ids, which may have gaps; categories of the test file are
matched by name. Crowd regions (`iscrowd`) count as present.
"""

import json
import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._annotated import Difficult, annotated_source
from understudy.data.sources._annotations import (
    AnnotatedObject,
    Annotations,
    Faulty,
    images_in,
)
from understudy.data.sources._splits import SPLIT_NAMES, existing, no_test_split
from understudy.errors import DataError

_BESIDE_IMAGES = "_annotations.coco.json"
"""Name of a JSON file that lies beside its images."""
_REQUIRED_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}


def load(
    root: str,
    split: Split,
    *,
    unreadable: Unreadable = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Load the images of one split, in the order of its file.

    With `classes`, the class names of the training split, its file is not parsed for them.

    Raises:
        DataError: There is no such split, its file does not have COCO's format, no image can be
            used, or something is faulty and `unreadable` or `faulty` is `fail`.
    """
    top = existing(root, "a folder in the layout of COCO")
    file = _json_file(top, split)
    content = _read(file)
    if classes is None:
        training = _json_file(top, "train")
        categories = _categories(training, content if file == training else _read(training))
        classes = tuple(categories.values())
    annotations = Annotations(top, classes)
    folder = _image_folder(top, file, content)
    _add_images(annotations, content, folder, file)
    _reject_unlisted(annotations, content, folder, file)
    return annotated_source(
        annotations,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )


def _json_file(top: Path, split: Split) -> Path:
    """Return the JSON file of a split."""
    for name in SPLIT_NAMES[split]:
        candidates = [*(top / "annotations").glob("*.json"), *top.glob(f"{name}/{_BESIDE_IMAGES}")]
        matches = re.compile(rf"instances_{name}\d*\.json|{_BESIDE_IMAGES}").fullmatch
        files = [file for file in candidates if matches(file.name)]
        if len(files) > 1:
            several = " and ".join(sorted(str(file.relative_to(top)) for file in files))
            raise DataError(f"{top} has {several}: keep one file for the split {split!r}.")
        if files:
            return files[0]
    if split == "test":
        raise no_test_split(str(top))
    raise DataError(
        f"{top} has neither annotations/instances_train*.json nor train/{_BESIDE_IMAGES}; set "
        "data.root to a folder in the layout of COCO."
    )


def _read(file: Path) -> dict[str, Any]:
    """Parse a JSON file and check that its lists have the keys that are needed."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}.") from error
    for name, keys in _REQUIRED_KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(_is_entry(each, keys) for each in entries):
            with_keys = f" with {' and '.join(keys)}" if keys else ""
            raise DataError(
                f"{file} has no list {name!r} of entries{with_keys}, which COCO's format requires."
            )
    return dict(content)


def _is_entry(entry: Any, keys: Sequence[str]) -> bool:
    has_keys = isinstance(entry, dict) and all(key in entry for key in keys)
    return has_keys and isinstance(entry.get("id"), Hashable)


def _categories(file: Path, content: Mapping[str, Any]) -> dict[Any, str]:
    """Return id → name of every category, sorted by id."""
    names = {each["id"]: str(each["name"]) for each in content["categories"]}
    distinct, count = set(names.values()), len(content["categories"])
    if len(distinct) < count or not all(isinstance(number, int) for number in names):
        raise DataError(
            f"The {count} categories in {file} have {len(distinct)} names and {len(names)} ids; "
            "give each a name and an integer id of its own."
        )
    return dict(sorted(names.items()))


def _image_folder(top: Path, file: Path, content: Mapping[str, Any]) -> Path:
    """Return the folder of a file's images: the first candidate that has one of them."""
    if file.name == _BESIDE_IMAGES:
        return file.parent
    candidates = [top / inner / name for name in _folder_names(file) for inner in ("", "images")]
    candidates += [top / "images", top / "JPEGImages", top]
    for folder in candidates:
        if any((folder / str(each.get("file_name"))).is_file() for each in content["images"]):
            return folder
    raise DataError(
        f"None of the {len(content['images'])} images in {file} exists; put them into "
        f"{candidates[0]}."
    )


def _add_images(
    annotations: Annotations, content: Mapping[str, Any], folder: Path, file: Path
) -> None:
    """Add all images of a file with their objects."""
    names, objects = _categories(file, content), defaultdict(list)
    for each in content["annotations"]:
        objects[_hashable(each.get("image_id"))].append(_object(each, names))
    ids = set()
    for each in content["images"]:
        path = folder / str(each["file_name"])
        if each["id"] in ids:
            annotations.reject(path, f"has the id of another image, {each['id']}")
            continue
        ids.add(each["id"])
        height, width = (int(_finite(each.get(side), 0)) for side in ("height", "width"))
        annotations.add(path, (height, width), objects.pop(each["id"], ()))
    if objects:
        count = sum(map(len, objects.values()))
        annotations.reject(file, f"has {count} objects in images that it does not list")


def _reject_unlisted(
    annotations: Annotations, content: Mapping[str, Any], folder: Path, file: Path
) -> None:
    """Reject the images in a split's own folder that its file does not list."""
    # A folder that several splits share has many images that belong to another split.
    if file.name != _BESIDE_IMAGES and folder.name not in _folder_names(file):
        return
    listed = {folder / str(each["file_name"]) for each in content["images"]}
    if unlisted := [path for path in images_in(folder) if path not in listed]:
        first = unlisted[0].name
        annotations.reject(folder, f"has {len(unlisted)} images not in {file.name}, first: {first}")


def _folder_names(file: Path) -> tuple[str, str]:
    """Return the names that the folder of a file's images may have: `train2017`, `train`."""
    name = file.stem.removeprefix("instances_")
    return name, name.rstrip("0123456789")


def _object(entry: Mapping[str, Any], names: Mapping[Any, str]) -> AnnotatedObject:
    box, category = entry.get("bbox"), _hashable(entry.get("category_id"))
    numbers = box if isinstance(box, list) and len(box) == 4 else [nan] * 4
    left, top, width, height = (_finite(x, nan) for x in numbers)
    return AnnotatedObject(
        name=names.get(category, f"id {category}"),
        box=(left, top, left + width, top + height),
        crowd=bool(entry.get("iscrowd")),
        area=_finite(entry.get("area"), nan),
    )


def _hashable(number: Any) -> Hashable:
    """Return an id unchanged if it can be a key of a dict; a list and the like as text."""
    return number if isinstance(number, Hashable) else str(number)


def _finite(x: Any, default: float) -> float:
    """Return `x` if it is a finite number, else the default."""
    return x if isinstance(x, int | float) and isfinite(x) else default
