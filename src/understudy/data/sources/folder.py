"""Image files in folders: `train/<class>/…` and `test/<class>/…`, or images without classes.

The test split may also be called `val`, `valid` or `validation`; beside `test`, such a folder is
the validation split. Class folders in alphabetical order are the labels, as in torchvision's
ImageFolder. Images in a folder `unlabelled` beside class folders, directly in `train`, or in the
root itself, are unlabelled. Those of a folder `unlabelled` beside `train` are training images
without labels, whatever folders they lie in there. Links to folders are followed. Hidden files and
folders, and files without the suffix of an image, are ignored.

Folders that look like splits where classes are expected (`Train` and `Test`, or `CLASS/train` and
`CLASS/test`) are refused: test images would be trained on.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from understudy.batch import UNLABELLED
from understudy.data._image import SUFFIXES
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._files import from_files
from understudy.data.sources._listing import Listing, is_folder, is_hidden, list_images
from understudy.data.sources._many_files import Files, listed
from understudy.data.sources._splits import TEST_NAMES, choose, existing, no_split
from understudy.errors import DataError

SPLITS = ("train", "validation", "test")
UNLABELLED_NAMES = ("unlabelled", "unlabeled")
"""Names of a folder beside class folders whose images have no labels, in any case."""
_SPLIT_WORDS = frozenset(("train", "training", "trainset", "testing", "testset", *TEST_NAMES))
_NOT_TRAINED = _SPLIT_WORDS - {"train", "training", "trainset"}


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split, sorted by class and path.

    Raises:
        NoSplit: The folder has no such split.
        DataError: The folder is missing or has no images; a class folder is empty; the split has a
            class that training lacks; or a file cannot be read and `unreadable` is `fail`.
    """
    top = existing(root, "the folder of images")
    folder = _train_folder(top) if split == "train" else _other_folder(top, split)
    # The training folder comes first: its classes decide, if it is labelled.
    classes = _first_classes([top / "train", folder, *(top / name for name in TEST_NAMES)])
    source = _source(
        folder, top, classes, unreadable, lambda: _labelled_files(folder, top, classes)
    )
    source.split_name = folder.name if folder != top else ""
    return source


def unlabelled_beside(root: str) -> Path | None:
    """Return the folder of images without labels beside the splits; None if there is none."""
    if not root or not (Path(root) / "train").is_dir():
        return None
    folders = (Path(root) / name for name in _folders(Path(root)) if _is_unlabelled(name))
    return next(folders, None)


def load_unlabelled(top: Path, *, unreadable: Unreadable = "skip") -> Source:
    """Load all images in a folder and below it, sorted by path, without labels.

    Raises:
        DataError: The folder is missing or has no images, or a file cannot be read and
            `unreadable` is `fail`.
    """
    if not top.is_dir():
        raise DataError(
            f"There is no folder {str(top)!r}; set data.unlabelled to a folder of images."
        )
    return _source(top, top, [], unreadable, lambda: _unlabelled_files(top))


def _source(
    folder: Path,
    top: Path,
    classes: Sequence[str],
    unreadable: Unreadable,
    list_files: Callable[[], Files],
) -> Source:
    """Return the source of the files of a split: decoded beforehand unless they are very many."""
    files = listed(folder, top, classes, unreadable, list_files)
    if isinstance(files, Source):
        return files
    return from_files(
        files.paths,
        torch.from_numpy(files.labels),
        classes,
        root=files.top,
        unreadable=unreadable,
        skipped=files.skipped,
    )


def _unlabelled_files(top: Path) -> Files:
    """Return all image files in a folder and below it, sorted by path."""
    files, listing = Files(top), list_images(top, deep=True)
    if not listing.names:
        raise _no_images(f"{top} holds no images", listing)
    files.add(listing, UNLABELLED)
    return files


def _train_folder(top: Path) -> Path:
    if (top / "train").is_dir():
        return top / "train"
    if not any((top / name).is_dir() for name in TEST_NAMES):
        _check_no_splits(top, _folders(top))
        return top
    raise DataError(f"{top} has a test folder but no folder 'train'; put training images there.")


def _other_folder(top: Path, split: Split) -> Path:
    """Return the folder of the validation or the test split."""
    name = choose(split, [path.name for path in top.iterdir() if path.is_dir()])
    if name is None:
        raise no_split(split, str(top))
    return top / name


def _first_classes(folders: Sequence[Path]) -> list[str]:
    """Return the class names of the first folder that has class folders."""
    names = (_classes(folder) for folder in folders if folder.is_dir())
    return next((classes for classes in names if classes), [])


def _classes(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted; the label of a class is its position."""
    return [name for name in _folders(folder) if not _is_unlabelled(name)]


def _is_unlabelled(name: str) -> bool:
    return name.lower() in UNLABELLED_NAMES


def _check_no_splits(folder: Path, names: Sequence[str]) -> None:
    """Refuse folders that are those of splits under other names.

    Raises:
        DataError: Some are called like a split for training and like another one, or all like
            one for training.
    """
    words = {name.lower() for name in names}
    trained = words - _NOT_TRAINED
    if trained & _SPLIT_WORDS and (words & _NOT_TRAINED or trained <= _SPLIT_WORDS):
        similar = ", ".join(name for name in names if name.lower() in _SPLIT_WORDS)
        raise DataError(
            f"{folder} holds {similar}, which look like splits and not like classes: call "
            "them train and test, with the class folders inside of each."
        )


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_hidden(e.name) and is_folder(e))


def _labelled_files(folder: Path, top: Path, classes: Sequence[str]) -> Files:
    """Return image files and labels, sorted by class and path."""
    files, loose, folders = Files(top), list_images(folder, deep=False), _folders(folder)
    names = [name for name in folders if not _is_unlabelled(name)]
    if not folders:
        if not loose.names:
            raise _no_images(f"{folder} holds no images", loose)
        files.add(loose, UNLABELLED)
        return files
    if loose.names:
        raise DataError(
            f"{folder} holds class folders ({folders[0]}, …), but also {len(loose.names)} images "
            f"beside them ({Path(loose.names[0]).name}, …); move these into class folders, or into "
            "a folder 'unlabelled' if they have no class, or list paths and labels in a CSV file "
            "(data.source=csv)."
        )
    if unknown := sorted(set(names) - set(classes)):
        raise DataError(
            f"{folder} has the class {unknown[0]!r}, which the training images lack; "
            f"they have: {', '.join(classes) or 'no classes'}."
        )
    files.note(loose)
    _add_folders(files, folder, folders, classes)
    return files


def _add_folders(
    files: Files, folder: Path, folders: Sequence[str], classes: Sequence[str]
) -> None:
    """Append the images of all class folders, in the order of the folders."""
    for name in folders:
        listing = list_images(folder / name, deep=True)
        _check_no_splits(folder / name, listing.children)
        if not listing.names:
            raise _no_images(f"The class folder {folder / name} holds no images", listing)
        files.links = files.links or (folder / name).is_symlink()
        files.add(listing, UNLABELLED if _is_unlabelled(name) else classes.index(name))


def _no_images(what: str, listing: Listing) -> DataError:
    if listing.skipped:
        return DataError(
            f"{what} that can be read: {len(listing.skipped)} files were left out, first: "
            f"{listing.skipped[0]}."
        )
    if what.startswith("The class folder"):
        return DataError(f"{what}; add some, or remove the folder.")
    return DataError(f"{what}; they end in {', '.join(sorted(SUFFIXES))}.")
