"""Data that a program gives: map-style datasets of torch and Hugging Face, and pairs of arrays.

    data = train_set                               the training images alone
    data = (train_set, test_set)                   or with the test images, perhaps validation
    data = {"train": …, "validation": …, "test": …}

Each of these is a dataset with `len` and whole numbers as indices, or a pair (images, labels) of
arrays, tensors or lists. An item of a dataset is `(image, label)`, a mapping with `image` and
`label`, or an image alone; see `_given_images` for images, and `_own_targets` for labels.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from PIL import Image
from torch import Tensor

from understudy.data._own_items import LABELS, Images, read
from understudy.data._own_targets import class_names_of, read_targets
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._splits import choose
from understudy.errors import DataError

_ORDER: tuple[Split, ...] = ("train", "test", "validation")
"""What the elements of a tuple are."""


@final
class OwnData:
    """The splits that a program gives, read and checked when they are asked for first.

    Args:
        data: As described in this module.
        alone: What a single dataset is.
        workers: Processes that read the images.
        classes: Class names to use where no dataset has any, such as those of a trained student.

    Raises:
        DataError: It is none of these forms.
    """

    def __init__(
        self, data: Any, *, alone: Split = "train", workers: int = 0, classes: Sequence[str] = ()
    ) -> None:
        self._splits, self._workers, self._classes = _splits(data, alone), workers, classes
        self._read: dict[Split, Images] = {}

    def __contains__(self, split: Split) -> bool:
        return split in self._splits

    def source(self, split: Split, *, unreadable: Unreadable, faulty: str) -> Source:
        """Return the images of one split.

        Args:
            split: One that there is.
            unreadable: What to do with items that cannot be read.
            faulty: What to do with faulty boxes.

        Raises:
            DataError: They cannot be used.
        """
        for name, dataset in self._splits.items():
            if name not in self._read:
                self._read[name] = read(dataset, f"data= ({name})", unreadable, self._workers)
        own = self._read[split]
        targets = read_targets(own.targets, self._names, own.sides, faulty, of=f"data= ({split})")
        source = own.source(targets, self._names)
        source.split_name = f"{split}, {type(self._splits[split]).__name__}"
        return source

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Class names, of the datasets or of their targets; all splits have been read."""
        known = [names for dataset in self._splits.values() if (names := _classes(dataset))]
        targets = [self._read[name].targets for name in self._splits]
        return class_names_of(known, targets, self._classes)


def _splits(data: Any, alone: Split) -> dict[Split, Any]:
    if isinstance(data, Mapping):
        keys: dict[Split, str | None] = {name: choose(name, list(data)) for name in _ORDER}
        chosen = {name: data[key] for name, key in keys.items() if key is not None}
        if unused := set(data) - set(keys.values()):
            raise DataError(
                f"data= has {', '.join(map(repr, sorted(map(str, unused))))}, which is no split: "
                "call them train, validation and test."
            )
    elif isinstance(data, tuple) and not _is_pair(data):
        if not 1 <= len(data) <= len(_ORDER):
            raise DataError(
                f"data= is a tuple of {len(data)}; give (train, test) or (train, test, validation)."
            )
        chosen = dict(zip(_ORDER, data, strict=False))
    else:
        chosen = {alone: data}
    return {name: _as_dataset(each, name) for name, each in chosen.items() if each is not None}


def _is_pair(value: Any) -> bool:
    """Return True for (images, labels): arrays, tensors or lists of one length."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    images, labels = value
    if isinstance(images, Tensor | np.ndarray):
        # Labels have fewer axes than images.
        return images.ndim >= 3 and (not hasattr(labels, "ndim") or labels.ndim <= 2)
    if not isinstance(images, list) or not isinstance(labels, list | np.ndarray | Tensor):
        return False
    # Otherwise both are lists of items, (image, label) or an image alone.
    return bool(images) and _is_image(images[0]) and not (len(labels) and _is_item(labels[0]))


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | np.ndarray | Tensor)


def _is_item(value: Any) -> bool:
    """Return True for an image, or one with its label."""
    first = value[0] if isinstance(value, tuple) and value else value
    return isinstance(first, Image.Image) or getattr(first, "ndim", 0) >= 2


@final
class Arrays(Sequence[Any]):
    """A pair (images, labels) as a dataset."""

    def __init__(self, images: Any, labels: Any) -> None:
        if len(images) != len(labels):
            raise DataError(
                f"data= has {len(images)} images and {len(labels)} labels: give one for each."
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: Any) -> Any:
        return self.images[i], self.labels[i]


def _as_dataset(value: Any, split: Split) -> Any:
    if _is_pair(value):
        return Arrays(*value)
    if not hasattr(value, "__getitem__") or not hasattr(value, "__len__") or isinstance(value, str):
        raise DataError(
            f"data= ({split}) is a {type(value).__name__}; it must be a dataset with len() and "
            "whole numbers as indices, or a pair (images, labels). A DataLoader has its `.dataset`."
        )
    if not len(value):
        raise DataError(f"data= ({split}) has no images.")
    return value


def _classes(dataset: Any) -> tuple[str, ...]:
    """Return the class names that a dataset knows, also one inside of others; empty if none."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        columns = [getattr(features[key], "names", None) for key in LABELS if key in features]
        return next((tuple(each) for each in columns if each), ())
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and names:
        return tuple(map(str, names))
    inner = [getattr(dataset, "dataset", None), *getattr(dataset, "datasets", ())]
    known = (_classes(each) for each in inner if each is not None)
    return next(filter(None, known), ())
