"""CIFAR-10 and CIFAR-100, in torchvision's format or unpacked into folders of images."""

from pathlib import Path
from typing import Any

import torch

from understudy.data.source import MemorySource, Source, Split, Unreadable
from understudy.data.sources import folder
from understudy.data.sources._splits import no_validation_split
from understudy.errors import DataError

_SIZE = 32


def load(
    dataset: Any,
    root: str,
    split: Split,
    *,
    classes: int,
    unreadable: Unreadable,
) -> Source:
    """Load one split from torchvision's format, or from folders `{train,test}/<class>/`.

    The official labels number the classes alphabetically, so that both formats have the same. Only
    folders can have a validation split.

    Args:
        dataset: Class of `torchvision.datasets`, which also downloads.
        root: Folder of the data set.
        split: Split to load.
        classes: Number of classes.
        unreadable: What to do with files that cannot be decoded.

    Raises:
        NoSplit: There is no validation split beside the test split.
        DataError: There is no root, the data are not there and cannot be downloaded, or the folders
            hold other images.
    """
    name = dataset.__name__
    if not root:
        raise DataError(f"{name} needs a folder; set data.root.")
    if any((Path(root) / name).is_dir() for name in ("train", split)):
        source = folder.load(root, split, unreadable=unreadable)
        if len(source.classes) != classes or source.pixels is None or source.size != _SIZE:
            raise DataError(
                f"{root} does not hold {name}: it has {len(source.classes)} classes, and "
                f"{classes} of {_SIZE}×{_SIZE} pixels are expected; use the source 'folder'."
            )
        return source
    if split == "validation":
        raise no_validation_split(root)
    return _torchvision(dataset, root, split)


def _torchvision(dataset: Any, root: str, split: Split) -> Source:
    try:
        downloaded = dataset(root, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{dataset.__name__} is not in {root} and cannot be downloaded ({error}); put the "
            f"unpacked archive there, or folders of images {split}/<class>/."
        ) from error
    pixels = torch.from_numpy(downloaded.data).permute(0, 3, 1, 2).contiguous()
    return MemorySource(pixels, torch.tensor(downloaded.targets), downloaded.classes)
