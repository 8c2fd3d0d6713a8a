"""Images with boxes in XML, as in PASCAL VOC: a devkit, or XML files beside or near their images.

The root is one of

    VOC2007/, VOC2012/, …          train: `trainval` of all years; test: `test` of the first that
                                   has one, which is 2007
    ImageSets/Main/, Annotations/, JPEGImages/        one such year
    train/, test/                  images, each with an XML file of the same name: beside it, or
                                   images in `images` and XML files in `annotations` of that folder
    images/train/, annotations/train/, …              the same the other way round
    images/, annotations/          training images alone; also `JPEGImages`, or all in the root

The test split may also be called `val`, `valid` or `validation`; beside `test`, such a folder or
list is the validation split. In a devkit without a list `test`, the training split is `train` and
the test split is `val`. Files have the encoding that they declare. Coordinates of boxes are used
unchanged. VOC counts pixels from 1, and the last one is inside: its boxes lie one pixel further
right and down, and are one pixel smaller, than with corners counted from 0. Nearly all other data
sets in this format count from 0.

The classes are those of the training images, sorted by name; in a folder with `ImageSets` whose
names are all among the 20 classes of VOC, they are those 20 in their usual order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from understudy.data._image import SUFFIXES
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._annotated import Difficult, annotated_source
from understudy.data.sources._annotations import Annotations, Faulty, images_in
from understudy.data.sources._named_files import is_file, named_in
from understudy.data.sources._splits import (
    SPLIT_NAMES,
    VALIDATION_NAMES,
    NoSplit,
    choose,
    existing,
    no_split,
)
from understudy.data.sources._voc_xml import ImageAnnotation, NotAnAnnotation, read
from understudy.errors import DataError

SPLITS = ("train", "validation", "test")
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes of VOC, in their usual order."""
_LISTS = Path("ImageSets", "Main")
_IMAGE_FOLDERS = ("images", "jpegimages")
_XML_FOLDERS = ("annotations", "annots", "xml", "xmls", "labels")
"""Names of folders, in lower case."""


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
    source = annotated_source(
        annotations,
        train=split == "train",
        unreadable=unreadable,
        faulty=faulty,
        difficult=difficult,
    )
    source.split_name = _split_name(top, split)
    return source


def _classes(top: Path, training: Iterable[ImageAnnotation]) -> tuple[str, ...]:
    """Return the class names of the training split, in the order of their labels."""
    names = {thing.name for each in training for thing in each.objects if thing.name}
    return CLASSES if _year_folders(top) and names <= set(CLASSES) else tuple(sorted(names))


def _parsed(top: Path, split: Split, rejected: list[str]) -> Iterator[ImageAnnotation]:
    """Parse the XML files of a split; append to `rejected` what cannot be used."""
    for image, xml in _pairs(top, split, rejected):
        try:
            yield read(image, xml)
        except FileNotFoundError:
            rejected.append(f"{image.relative_to(top)} has no annotation {xml.name}")
        except NotAnAnnotation as error:
            rejected.append(f"{xml.relative_to(top)} {error}")
        except OSError as error:
            rejected.append(f"{xml.relative_to(top)} cannot be read ({error.strerror})")


def _pairs(top: Path, split: Split, rejected: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield the paths of image and XML file for every image of a split; they may not exist."""
    years = _year_folders(top)
    if not years:
        yield from _pairs_of_folders(*_split_folders(top, split), rejected, top)
        return
    for file in _list_files(top, years, split):
        year = file.parents[2]
        images = _by_stem(images_in(year / "JPEGImages"))
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for line, name in enumerate(map(str.strip, lines), 1):
            if not name:
                continue
            stem = name.removesuffix(Path(name).suffix) if _has_suffix(name) else name
            by = f"{file.relative_to(top)}, line {line},"
            (xml,) = named_in([year / "Annotations"], f"{stem}.xml", top, by=by)
            image, *others = images.get(stem, [year / "JPEGImages" / f"{stem}.jpg"])
            yield image, xml
            rejected += [f"{other.relative_to(top)} shares {stem}.xml" for other in others]


def _has_suffix(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _year_folders(top: Path) -> list[Path]:
    """Return the folders with lists of images, by year; none if XML files lie beside the images."""
    devkit = top / "VOCdevkit" if (top / "VOCdevkit").is_dir() else top
    years = sorted(path for path in devkit.iterdir() if re.fullmatch(r"VOC\d{4}", path.name))
    return [folder for folder in (devkit, *years) if (folder / _LISTS).is_dir()]


def _list_files(top: Path, years: Sequence[Path], split: Split) -> list[Path]:
    """Return the files that list the images of a split, one for each year that has it."""
    files = {
        name: [file for year in years if (file := year / _LISTS / f"{name}.txt").is_file()]
        for name in ("trainval", "train", "default", "test", *VALIDATION_NAMES)
    }
    files["val"] = next(filter(None, (files[name] for name in VALIDATION_NAMES)), [])
    # Without a test list, `val` is the test split, and `trainval` would contain it.
    trainval = files["trainval"] if files["test"] or not files["val"] else []
    # One year only: the test images of later years are published without their objects.
    tests = files["test"][:1] or files["val"]
    # Images of `val` that are trained on cannot choose the best epoch.
    validation = files["val"] if files["test"] and not trainval else []
    # CVAT calls the list of images without a split `default`.
    training = trainval or files["train"] or files["default"]
    by_split = {"train": training, "validation": validation, "test": tests}
    if lists := by_split[split]:
        return lists
    if split == "validation" and files["val"] and trainval:
        raise NoSplit(
            f"The images of {files['val'][0]} are in {trainval[0].name} too, which is trained on; "
            "set data.validation to keep a share of these for validation, or remove "
            f"{trainval[0].name} to train on train.txt."
        )
    if split != "train":
        raise no_split(split, str(top))
    raise DataError(f"{years[0] / _LISTS} has no list of training images: put train.txt there.")


def _split_name(top: Path, split: Split) -> str:
    """Return the names of the lists of a split, or that of the folder of its images."""
    if years := _year_folders(top):
        return ", ".join(str(file.relative_to(top)) for file in _list_files(top, years, split))
    folder = _split_folders(top, split)[0]
    return "" if folder == top else str(folder.relative_to(top))


def _split_folders(top: Path, split: Split) -> tuple[Path, list[Path]]:
    """Return the folder of a split's images, and those that may have their XML files."""
    folders = _folders_by_split(top)
    name = choose(split, folders)
    if name is not None:
        return folders[name]
    if split != "train":
        raise no_split(split, str(top))
    raise DataError(
        f"{top} has none of the folders ImageSets/Main, VOC2007 and train; set data.root to a "
        "folder in the layout of VOC, or with images and XML files in train and test."
    )


def _folders_by_split(top: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Return name of a split → folder of its images, and folders with their XML files."""
    images, xmls = _parts(top)
    inside = {name: _parts(folder) for name, folder in _named_folders(top).items()}
    if inside:
        beside = xmls[:-1] if images == top else xmls[:-2]
        return {
            name: (folder, [*own, *(xml / name for xml in beside)])
            for name, (folder, own) in inside.items()
        }
    below = {
        name: (folder, [*(xml / folder.name for xml in xmls), folder])
        for name, folder in _named_folders(images).items()
    }
    if below:
        return below
    return {"train": (images, xmls)} if any(_xml_files(folder) for folder in xmls) else {}


def _named_folders(folder: Path) -> dict[str, Path]:
    names = {name for names in SPLIT_NAMES.values() for name in names}
    return {p.name: p for p in sorted(folder.iterdir()) if p.name.lower() in names and p.is_dir()}


def _parts(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder of the images in a split's folder, and those of its XML files."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    images = next((p for p in folders if p.name.lower() in _IMAGE_FOLDERS), folder)
    xmls = [path for path in folders if path.name.lower() in _XML_FOLDERS]
    return images, list(dict.fromkeys([*xmls, images, folder]))


def _pairs_of_folders(
    folder: Path, xml_folders: Sequence[Path], rejected: list[str], top: Path
) -> Iterator[tuple[Path, Path]]:
    """Yield image and XML file of the same name, also several; reject all others."""
    images = _by_stem(images_in(folder))
    xmls = _by_stem(xml for part in xml_folders for xml in _xml_files(part))
    for stem, (image, *others) in images.items():
        for xml in xmls.get(stem, [folder / f"{stem}.xml"]):
            yield image, xml
        rejected += [f"{other.relative_to(top)} shares {stem}.xml" for other in others]
    for stem, paths in xmls.items():
        if stem not in images:
            rejected += [f"{xml.relative_to(top)} has no image of this name" for xml in paths]


def _xml_files(folder: Path) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in entries if p.suffix.lower() == ".xml" and is_file(p))


def _by_stem(paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    """Map file names without suffix to files: `a.jpg` and `a.png` have one."""
    files: dict[str, list[Path]] = {}
    for path in paths:
        files.setdefault(path.stem, []).append(path)
    return files
