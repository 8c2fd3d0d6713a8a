"""Image files in folders: `train/<class>/…` and `test/<class>/…`, or images without classes.

The test split may also be called `val`, `valid` or `validation`. Class folders in alphabetical
order are the labels, as in torchvision's ImageFolder. Images that lie directly in `train`, or in
the root itself, are unlabelled. Files without the suffix of an image are ignored.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from understudy.batch import UNLABELLED
from understudy.data._image import SUFFIXES
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._files import from_files
from understudy.data.sources._splits import TEST_NAMES, existing, no_test_split
from understudy.errors import DataError


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, sorted by class and path.

    Raises:
        DataError: The folder is missing, has no images or no such split; a class folder is empty;
            the test split has a class that training lacks; or a file cannot be read and
            `unreadable` is `fail`.
    """
    top = existing(root, "the folder of images")
    folder = _train_folder(top) if split == "train" else _test_folder(top)
    # The training folder comes first: its classes decide, if it is labelled.
    classes = _first_classes([top / "train", folder, *(top / name for name in TEST_NAMES)])
    paths, labels = _labelled_files(folder, classes)
    return from_files(paths, torch.tensor(labels), classes, root=top, unreadable=unreadable)


def _train_folder(top: Path) -> Path:
    if (top / "train").is_dir():
        return top / "train"
    if not any((top / name).is_dir() for name in TEST_NAMES):
        return top
    raise DataError(f"{top} has a test folder but no folder 'train'; put training images there.")


def _test_folder(top: Path) -> Path:
    for name in TEST_NAMES:
        if (top / name).is_dir():
            return top / name
    raise no_test_split(str(top))


def _first_classes(folders: Sequence[Path]) -> list[str]:
    """Return the class names of the first folder that has class folders."""
    names = (_classes(folder) for folder in folders if folder.is_dir())
    return next((classes for classes in names if classes), [])


def _classes(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted; the label of a class is its position."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _labelled_files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return image files and labels, sorted by class and path."""
    loose, names = _images(_files(folder, deep=False)), _classes(folder)
    if not names:
        if not loose:
            raise DataError(f"{folder} holds no images; they end in {', '.join(sorted(SUFFIXES))}.")
        return loose, [UNLABELLED] * len(loose)
    if loose:
        raise DataError(
            f"{folder} holds class folders ({names[0]}, …), but also {len(loose)} images beside "
            f"them ({loose[0].name}, …); move these into class folders."
        )
    if unknown := sorted(set(names) - set(classes)):
        raise DataError(
            f"{folder} has the class {unknown[0]!r}, which the training images lack; "
            f"they have: {', '.join(classes) or 'no classes'}."
        )
    files = {name: _images(_files(folder / name, deep=True)) for name in names}
    if empty := [name for name in names if not files[name]]:
        raise DataError(
            f"The class folder {folder / empty[0]} holds no images; add some, or remove the folder."
        )
    rows = [(path, classes.index(name)) for name in names for path in files[name]]
    return [path for path, _ in rows], [label for _, label in rows]


def _images(files: Iterable[os.DirEntry[str]]) -> list[Path]:
    suffixes = tuple(SUFFIXES)
    return sorted(
        Path(file.path)
        for file in files
        if file.name.lower().endswith(suffixes) and not file.name.startswith(".")
    )


def _files(folder: Path | str, *, deep: bool) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder, and with `deep` in those below it.

    Several times faster than `Path.glob`: `os.scandir` tells files from folders without a further
    call for each.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if deep and entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, deep=True)
            elif entry.is_file():
                yield entry
