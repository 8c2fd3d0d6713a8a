"""Images with boxes in one JSON file for each split, as in COCO.

The root is the JSON file of all images, which are then for training (`data.validation` keeps a
share of them for validation), or a folder. There, `train` in the name of a JSON file, or of a
folder above it, makes it the file of the training split, such as

    annotations/instances_train2017.json, annotations/train.json, train.json
    train/_annotations.coco.json, train/labels.json, train/annotations/instances_default.json

and likewise `test`, `val`, `valid` and `validation`: without `test`, the validation split is the
test split. A single file of another name, such as `result.json`, `labels.json` or
`annotations/instances_default.json`, is for training. Of two files for one split, neither is taken.

Images lie in a folder called like the split (`train2017` or `train`), in the root or in `images/`,
`data/` or `JPEGImages/`; in one of these three; or beside the JSON file. All are inside of the
root.

The classes are the categories of the training file in the order of their ids, which may have gaps;
categories of the test file are matched by name. A first category that has no box and whose name
all others have as their supercategory, as Roboflow writes it, is no class. Crowd regions
(`iscrowd`) count as present.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
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
from understudy.data.sources._coco_files import CocoFiles, find, folder_names, image_folder
from understudy.data.sources._named_files import named_in
from understudy.data.sources._values import flag, key, number, numbers
from understudy.errors import DataError

SPLITS = ("train", "validation", "test")
_REQUIRED_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
_NO_NAME = (None, "", "none")


@dataclass(frozen=True)
class _Content:
    """Content of a JSON file."""

    file: Path
    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Mapping[Hashable, str]
    """Id → name, sorted by id."""

    @property
    def file_names(self) -> list[str]:
        return [str(each["file_name"]) for each in self.images]


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
    files = find(root)
    file = files.json_file(split)
    content = _read(file)
    if classes is None:
        training = files.json_file("train")
        categories = (content if file == training else _read(training)).categories
        classes = tuple(categories.values())
    annotations = Annotations(files.top, classes, form="size")
    folder = image_folder(files, file, content.file_names)
    _add_images(annotations, content, folder)
    _reject_unlisted(annotations, content, folder, files)
    source = annotated_source(
        annotations,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )
    source.split_name = file.relative_to(files.top).as_posix()
    return source


def _read(file: Path) -> _Content:
    """Parse a JSON file and check that its lists have the keys that are needed."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file} is not JSON: {error}.") from error
    for name, keys in _REQUIRED_KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(_is_entry(each, keys) for each in entries):
            with_keys = f" with {' and '.join(keys)}" if keys else ""
            raise DataError(
                f"{file} has no list {name!r} of entries{with_keys}, which COCO's format requires."
            )
    if not content["images"]:
        raise DataError(f"{file} lists no images.")
    annotations = content["annotations"]
    used = {key(each.get("category_id")) for each in annotations}
    categories = _categories(file, _without_project(content["categories"], used))
    return _Content(file, content["images"], annotations, categories)


def _is_entry(entry: Any, keys: Sequence[str]) -> bool:
    has_keys = isinstance(entry, dict) and all(
        isinstance(entry.get(name), str | int | float) for name in keys
    )
    return has_keys and isinstance(entry.get("id"), Hashable)


def _without_project(
    categories: Sequence[Mapping[str, Any]], used: set[Hashable]
) -> Sequence[Mapping[str, Any]]:
    """Leave out the category that stands for the whole project; see the docstring above."""
    for project in categories:
        others = [each for each in categories if each is not project]
        named_by_all = all(each.get("supercategory") == project["name"] for each in others)
        is_unused = key(project["id"]) not in used
        if others and named_by_all and is_unused and project.get("supercategory") in _NO_NAME:
            return others
    return categories


def _categories(file: Path, categories: Sequence[Mapping[str, Any]]) -> dict[Hashable, str]:
    """Return id → name of every category, sorted by id."""
    pairs = {(key(each["id"]), str(each["name"]).strip()) for each in categories}
    names = dict(pairs)
    distinct = set(names.values())
    integers = [each for each in names if isinstance(each, int)]
    if not len(pairs) == len(names) == len(distinct) == len(integers) or "" in distinct:
        raise DataError(
            f"The {len(pairs)} categories in {file} have {len(distinct)} names and {len(names)} "
            "ids; give each a name and an integer id of its own."
        )
    return {each: names[each] for each in sorted(integers)}


def _add_images(annotations: Annotations, content: _Content, folder: Path) -> None:
    """Add all images of a file with their objects."""
    objects: dict[Hashable, list[AnnotatedObject]] = defaultdict(list)
    faults: dict[Hashable, list[str]] = defaultdict(list)
    for each in content.annotations:
        image = key(each.get("image_id"))
        objects[image].append(_object(each, content.categories))
        if flag(each.get("iscrowd")) is None:
            faults[image].append(f"has an object whose iscrowd is {each['iscrowd']!r}, taken as 0")
    names = defaultdict[Hashable, set[str]](set)
    for each in content.images:
        names[key(each["id"])].add(str(each["file_name"]))
    for each in content.images:
        image, name = key(each["id"]), str(each["file_name"])
        path = _path(annotations.root, folder, name, content.file)
        if len(names[image]) > 1:
            # Nobody can tell which of them the objects are in.
            annotations.reject(path, f"has the id of another image, {each['id']}")
            continue
        sides = [number(each.get(side)) for side in ("height", "width")]
        height, width = (int(side) if side == side else 0 for side in sides)
        annotations.add(path, (height, width), objects.get(image, ()), faults.get(image, ()))
    if objects and objects.keys().isdisjoint(names):
        raise DataError(
            f"None of the {len(content.annotations)} annotations in {content.file} is of an image "
            "that it lists: each image_id must be the id of an image."
        )
    if unlisted := [len(each) for image, each in objects.items() if image not in names]:
        reason = f"has {sum(unlisted)} objects in images that it does not list"
        annotations.reject(content.file, reason)


def _path(top: Path, folder: Path, name: str, file: Path) -> Path:
    # `image_folder` has refused names that are outside of the root wherever they start.
    return named_in([folder, file.parent, top], name, top, by=str(file))[0]


def _reject_unlisted(
    annotations: Annotations, content: _Content, folder: Path, files: CocoFiles
) -> None:
    """Reject the images in a split's own folder that its file does not list."""
    # A folder that several splits share has many images that belong to another split.
    beside = folder == content.file.parent and folder != files.top
    if not beside and folder.name not in folder_names(content.file, files.top):
        return
    listed = {_path(files.top, folder, name, content.file) for name in content.file_names}
    if unlisted := [path for path in images_in(folder) if path not in listed]:
        first = unlisted[0].name
        annotations.reject(
            folder, f"has {len(unlisted)} images not in {content.file.name}, first: {first}"
        )


def _object(entry: Mapping[str, Any], names: Mapping[Hashable, str]) -> AnnotatedObject:
    box, category = entry.get("bbox"), key(entry.get("category_id"))
    corners, fault = [nan] * 4, ""
    if not box:
        fault = "object without a box"
    elif not isinstance(box, list) or len(box) != 4:
        fault = "box that is not a list of 4 numbers"
    else:
        corners, fault = numbers(box)
    left, top, width, height = corners
    return AnnotatedObject(
        name=names.get(category, f"id {category}"),
        box=(left, top, left + width, top + height),
        crowd=bool(flag(entry.get("iscrowd"))),
        area=number(entry.get("area")),
        fault=fault,
    )
