"""Images with boxes in XML, as in PASCAL VOC: a devkit, or every XML file beside its image.

The root is one of

    VOC2007/, VOC2012/, …          train: `trainval` of all years; test: `test` of the first that
                                   has one, which is 2007
    ImageSets/Main/, Annotations/, JPEGImages/        one such year
    train/, test/                  images, each with an XML file of the same name beside it; the
                                   test split may also be called `val`, `valid` or `validation`

Without a list `test`, the training split is `train` and the test split is `val`. Coordinates of
boxes are used unchanged. VOC counts pixels from 1, and the last one is inside: its boxes lie one
pixel further right and down, and are one pixel smaller, than with corners counted from 0. Nearly
all other data sets in this format count from 0.

The classes are those of the training images, sorted by name; in a folder with `ImageSets` whose
names are all among the 20 classes of VOC, they are those 20 in their usual order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._annotated import Difficult, annotated_source
from understudy.data.sources._annotations import (
    AnnotatedObject,
    Annotations,
    Faulty,
    images_in,
)
from understudy.data.sources._splits import TEST_NAMES, existing, no_test_split
from understudy.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes of VOC, in their usual order."""
_LISTS = Path("ImageSets", "Main")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _ImageAnnotation(NamedTuple):
    """Content of one XML file; `sides` are 0 where it does not state them."""

    image: Path
    sides: tuple[int, int]
    objects: Sequence[AnnotatedObject]


def load(
    root: str,
    split: Split,
    *,
    unreadable: Unreadable = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Load the images of one split, in the order of their list, or sorted by name.

    With `classes`, the class names of the training split, its files are not parsed for them.

    Raises:
        DataError: The folder has no such layout or split, no image can be used, or something is
            faulty and `unreadable` or `faulty` is `fail`.
    """
    top = existing(root, "a folder in the layout of VOC")
    rejected: list[str] = []
    parsed = list(_parsed(top, split, rejected))
    if classes is None:
        classes = _classes(top, parsed if split == "train" else _parsed(top, "train", []))
    annotations = Annotations(top, classes, rejected=rejected)
    for each in parsed:
        annotations.add(*each)
    return annotated_source(
        annotations,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )


def _classes(top: Path, training: Iterable[_ImageAnnotation]) -> tuple[str, ...]:
    """Return the class names of the training split, in the order of their labels."""
    names = {thing.name for each in training for thing in each.objects}
    return CLASSES if _year_folders(top) and names <= set(CLASSES) else tuple(sorted(names))


def _parsed(top: Path, split: Split, rejected: list[str]) -> Iterator[_ImageAnnotation]:
    """Parse the XML files of a split; append to `rejected` what cannot be used."""
    for image, xml in _pairs(top, split, rejected):
        try:
            yield _image_annotation(image, ElementTree.parse(xml).getroot())
        except FileNotFoundError:
            rejected.append(f"{image.relative_to(top)} has no annotation {xml.name}")
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            rejected.append(f"{xml.relative_to(top)} cannot be read as XML ({error})")


def _image_annotation(image: Path, root: ElementTree.Element) -> _ImageAnnotation:
    height, width = (_number(root, f"size/{side}") for side in ("height", "width"))
    sides = (0, 0) if isnan(height + width) else (int(height), int(width))
    return _ImageAnnotation(image, sides, [_object(each) for each in root.findall("object")])


def _object(element: ElementTree.Element) -> AnnotatedObject:
    return AnnotatedObject(
        name=(element.findtext("name") or "").strip(),
        box=[_number(element, f"bndbox/{corner}") for corner in _CORNERS],
        difficult=_number(element, "difficult") == 1,
    )


def _number(element: ElementTree.Element, path: str) -> float:
    """Return the finite number at a path below an element; NaN if there is none."""
    try:
        number = float(element.findtext(path) or "nan")
    except ValueError:
        return nan
    return number if isfinite(number) else nan


def _pairs(top: Path, split: Split, rejected: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield the paths of image and XML file for every image of a split; they may not exist."""
    years = _year_folders(top)
    if not years:
        yield from _pairs_beside(_split_folder(top, split), rejected, top)
        return
    for file in _list_files(top, years, split):
        year = file.parents[2]
        images = _images_by_stem(year / "JPEGImages")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for name in filter(None, map(str.strip, lines)):
            missing = year / "JPEGImages" / f"{name}.jpg"
            yield images.get(name, [missing])[0], year / "Annotations" / f"{name}.xml"


def _year_folders(top: Path) -> list[Path]:
    """Return the folders with lists of images, by year; none if XML files lie beside the images."""
    devkit = top / "VOCdevkit" if (top / "VOCdevkit").is_dir() else top
    years = sorted(path for path in devkit.iterdir() if re.fullmatch(r"VOC\d{4}", path.name))
    return [folder for folder in (devkit, *years) if (folder / _LISTS).is_dir()]


def _list_files(top: Path, years: Sequence[Path], split: Split) -> list[Path]:
    """Return the files that list the images of a split, one for each year that has it."""
    files = {
        name: [file for year in years if (file := year / _LISTS / f"{name}.txt").is_file()]
        for name in ("trainval", "train", "test", "val")
    }
    if split == "test":
        # One year only: the test images of later years are published without their objects.
        if tests := files["test"][:1] or files["val"]:
            return tests
        raise no_test_split(str(top))
    # Without a test list, `val` is the test split, and `trainval` would contain it.
    may_use_trainval = files["test"] or not files["val"]
    if training := (may_use_trainval and files["trainval"]) or files["train"]:
        return training
    raise DataError(f"{years[0] / _LISTS} has no list of training images: put train.txt there.")


def _split_folder(top: Path, split: Split) -> Path:
    """Return the folder of a split whose XML files lie beside the images."""
    tests = [top / name for name in TEST_NAMES if (top / name).is_dir()]
    if split == "test":
        if not tests:
            raise no_test_split(str(top))
        return tests[0]
    if (top / "train").is_dir():
        return top / "train"
    if tests or not any(top.glob("*.xml")):
        raise DataError(
            f"{top} has none of the folders ImageSets/Main, VOC2007 and train; set data.root to a "
            "folder in the layout of VOC, or with images and XML files in train and test."
        )
    return top


def _pairs_beside(folder: Path, rejected: list[str], top: Path) -> Iterator[tuple[Path, Path]]:
    """Yield image and XML file of the same name; reject all others."""
    images = _images_by_stem(folder)
    for stem, (image, *others) in images.items():
        yield image, folder / f"{stem}.xml"
        rejected += [f"{other.relative_to(top)} shares {stem}.xml" for other in others]
    for xml in sorted(folder.glob("*.xml")):
        if xml.stem not in images:
            rejected.append(f"{xml.relative_to(top)} has no image of this name")


def _images_by_stem(folder: Path) -> Mapping[str, list[Path]]:
    """Map file names without suffix to the images in a folder: `a.jpg` and `a.png` have one."""
    images: dict[str, list[Path]] = {}
    for path in images_in(folder):
        images.setdefault(path.stem, []).append(path)
    return images
