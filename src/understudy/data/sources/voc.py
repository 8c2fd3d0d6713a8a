"""Images with boxes in XML, as in PASCAL VOC: a devkit, or every XML file beside its image.

The root is one of

    VOC2007/, VOC2012/, …          train: `trainval` of all years; test: `test` of the first that
                                   has one, which is 2007
    ImageSets/Main/, Annotations/, JPEGImages/        one such year
    train/, test/                  images, each with an XML file of the same name beside it; the
                                   test split may also be called `val`, `valid` or `validation`

Without a list `test`, training is `train` and the test split is `val`. Boxes are taken as they are
written. VOC counts pixels from 1 and to the last one inside, so that its boxes are a pixel further
right and below, and a pixel smaller, than corners counted from 0; nearly all others who write this
format write such corners.

The training images decide on the classes, which are sorted by name; in a folder with `ImageSets`
whose names are all among the 20 classes of VOC, they are those 20 in their own order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from understudy.data.source import Source
from understudy.data.sources._annotated import Difficult, annotated
from understudy.data.sources._annotations import Faulty, Listing, Marked, images_in
from understudy.data.sources._splits import TEST_NAMES, existing, no_test_split
from understudy.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Of VOC, in their usual order."""
_LISTS = Path("ImageSets", "Main")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Page(NamedTuple):
    """What one XML file says; height and width are 0 where it does not."""

    image: Path
    size: tuple[int, int]
    objects: Sequence[Marked]


def load(
    root: str,
    split: Literal["train", "test"],
    *,
    unreadable: Literal["skip", "fail"] = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
    classes: tuple[str, ...] | None = None,
) -> Source:
    """Load the images of one split, in the order of their list, or by name.

    With `classes`, the class names of the training split, its files are not parsed for them.

    Raises:
        DataError: The folder has no such layout or split, nothing in it can be used, or something
            in it is at fault and `unreadable` or `faulty` is `fail`.
    """
    top = existing(root, "a folder as VOC's")
    lost: list[str] = []
    pages = list(_pages(top, split, lost))
    if classes is None:
        classes = _classes(top, pages if split == "train" else _pages(top, "train", []))
    listing = Listing(top, {name: label for label, name in enumerate(classes)}, lost=lost)
    for page in pages:
        listing.add(*page)
    return annotated(
        listing,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )


def _classes(top: Path, training: Iterable[_Page]) -> tuple[str, ...]:
    """Class names of the training split in the order of their labels."""
    names = {thing.name for page in training for thing in page.objects}
    return CLASSES if _years(top) and names <= set(CLASSES) else tuple(sorted(names))


def _pages(top: Path, split: Literal["train", "test"], lost: list[str]) -> Iterator[_Page]:
    """What can be read of a split; `lost` is told what cannot."""
    for image, xml in _pairs(top, split, lost):
        try:
            yield _page(image, ElementTree.parse(xml).getroot())
        except FileNotFoundError:
            lost.append(f"{image.relative_to(top)} has no annotation {xml.name}")
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            lost.append(f"{xml.relative_to(top)} cannot be read as XML ({error})")


def _page(image: Path, root: ElementTree.Element) -> _Page:
    height, width = (_number(root, f"size/{side}") for side in ("height", "width"))
    size = (0, 0) if isnan(height + width) else (int(height), int(width))
    return _Page(image, size, [_marked(each) for each in root.findall("object")])


def _marked(thing: ElementTree.Element) -> Marked:
    return Marked(
        name=(thing.findtext("name") or "").strip(),
        box=[_number(thing, f"bndbox/{corner}") for corner in _CORNERS],
        difficult=_number(thing, "difficult") == 1,
    )


def _number(element: ElementTree.Element, path: str) -> float:
    """The finite number in an element below; NaN if there is none."""
    try:
        found = float(element.findtext(path) or "nan")
    except ValueError:
        return nan
    return found if isfinite(found) else nan


def _pairs(
    top: Path, split: Literal["train", "test"], lost: list[str]
) -> Iterator[tuple[Path, Path]]:
    """Image and XML file of a split, whether they exist or not."""
    years = _years(top)
    if not years:
        yield from _beside(_folder(top, split), lost, top)
        return
    for file in _lists(top, years, split):
        year = file.parents[2]
        images = _images(year / "JPEGImages")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for name in filter(None, map(str.strip, lines)):
            missing = year / "JPEGImages" / f"{name}.jpg"
            yield images.get(name, [missing])[0], year / "Annotations" / f"{name}.xml"


def _years(top: Path) -> list[Path]:
    """The folders with lists of images, by year; none where XML files lie beside their images."""
    inner = top / "VOCdevkit" if (top / "VOCdevkit").is_dir() else top
    years = sorted(each for each in inner.iterdir() if re.fullmatch(r"VOC\d{4}", each.name))
    return [each for each in (inner, *years) if (each / _LISTS).is_dir()]


def _lists(top: Path, years: Sequence[Path], split: Literal["train", "test"]) -> list[Path]:
    """The list of each year that belongs to a split."""
    known = {name: _there(years, name) for name in ("trainval", "train", "test", "val")}
    if split == "test":
        # The images of later tests are published without their objects.
        if found := known["test"][:1] or known["val"]:
            return found
        raise no_test_split(str(top))
    # What `val` holds is kept for the test split, where there is no other.
    whole = known["test"] or not known["val"]
    if found := (whole and known["trainval"]) or known["train"]:
        return found
    raise DataError(f"{years[0] / _LISTS} has no list of training images: put train.txt there.")


def _there(years: Sequence[Path], name: str) -> list[Path]:
    return [f for year in years if (f := year / _LISTS / f"{name}.txt").is_file()]


def _folder(top: Path, split: Literal["train", "test"]) -> Path:
    """Folder of a split whose XML files lie beside the images."""
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
            "folder as VOC's, or with images and XML files in train and test."
        )
    return top


def _beside(folder: Path, lost: list[str], top: Path) -> Iterator[tuple[Path, Path]]:
    images = _images(folder)
    for stem, (image, *others) in images.items():
        yield image, folder / f"{stem}.xml"
        lost += [f"{other.relative_to(top)} shares {stem}.xml" for other in others]
    for xml in sorted(folder.glob("*.xml")):
        if xml.stem not in images:
            lost.append(f"{xml.relative_to(top)} is of no image that is there")


def _images(folder: Path) -> Mapping[str, list[Path]]:
    """Stem → the images of that name in a folder."""
    found: dict[str, list[Path]] = {}
    for path in images_in(folder):
        found.setdefault(path.stem, []).append(path)
    return found
