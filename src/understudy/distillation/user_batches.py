"""Batches of a user's own loop or loader: which forms they have, and what their labels mean."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.batch import UNLABELLED, Batch
from understudy.errors import DataError
from understudy.tasks import Task

_IMAGES = ("image", "images", "img", "pixel_values")
_LABELS = ("label", "labels", "target", "targets")
_FORMS = (
    "(images, labels), images alone, or a mapping with the keys 'image' and 'label'; for detectors "
    "(list of images, list of targets)"
)


def as_batch(images: Any, labels: Any, task: Task, classes: int | None) -> Batch:
    """Return a batch of a user's images and labels, checked and brought into the task's form.

    Args:
        images: As for `Batch.of`, or a batch, which is returned as it is.
        labels: As for `Batch.of`; for one class per image also soft labels, a row of shares of the
            classes that sum to 1, as mixup gives them.
        task: What labels ask of the student.
        classes: Number of logits; None if there are none.

    Raises:
        DataError: The labels do not fit the images, the task or the network.
    """
    if isinstance(images, Batch):
        return images
    batch = Batch.of(images, labels)
    if task.truth == "objects" or labels is None:
        return batch
    if batch.objects is not None:
        raise DataError("Images must be one tensor (batch, channels, height, width), not a list.")
    if len(labels) != len(images):
        raise DataError(f"There are {len(images)} images and {len(labels)} labels.")
    if task.truth == "classes":
        return replace(batch, labels=_checked_rows(batch.labels, classes))
    if not task.uses_labels and not batch.labels.is_floating_point():
        return batch
    hard, soft = _one_class(batch.labels, classes)
    return replace(batch, labels=hard, soft=soft)


def measured(item: Any, task: Task, classes: int | None) -> Batch:
    """Return a batch of what a user's loader gives, for `prepare`.

    Raises:
        DataError: It has none of the forms that are read, or soft labels.
    """
    images, labels = _pair(item)
    batch = as_batch(images, labels, task, classes)
    if batch.soft is not None or batch.mixed is not None:
        raise DataError(
            "`prepare` measures the teacher on single images, but these labels are mixed: give a "
            "loader without mixup."
        )
    return batch


@final
class ReadableAgain:
    """The images of a user's loader, which methods may read several times.

    Args:
        loader: Yields batches in one of the forms of `prepare`.
        task: What labels ask of the student.
        classes: Number of logits; None if there are none.
    """

    def __init__(self, loader: Iterable[Any], task: Task, classes: int | None) -> None:
        self._loader, self._task, self._classes = loader, task, classes
        self._was_read = False

    def batches(self, augmented: bool) -> Iterator[Batch]:
        """Yield every batch once; a loader of the user's own gives the same, augmented or not.

        Raises:
            DataError: The loader is no loader, or can be read only once and was.
        """
        if not isinstance(self._loader, Iterable):
            raise DataError(
                f"`prepare` needs a loader that yields {_FORMS}, not a "
                f"{type(self._loader).__name__}."
            )
        batches = iter(self._loader)
        if self._was_read and batches is self._loader:
            raise DataError(
                "Methods read the images more than once to measure the teacher, but an iterator "
                "can be read only once: give the loader itself, or a list of batches."
            )
        self._was_read = True
        for item in batches:
            yield measured(item, self._task, self._classes)


def num_images(loader: Any) -> int | None:
    """Return the images of a loader; None where it does not know, as with an iterable data set."""
    # A DataLoader has the length of its batches; the images are in its data set.
    if hasattr(loader, "dataset"):
        loader = loader.dataset
    elif isinstance(loader, list | tuple):
        return sum(len(_pair(item)[0]) for item in loader)
    try:  # of an iterable data set, a DataLoader has a length that fails
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        return None


def _pair(item: Any) -> tuple[Any, Any]:
    """Return images and labels, which may be None, of what a loader gives."""
    if isinstance(item, Batch | Tensor):
        return item, None
    if isinstance(item, Mapping):
        images, labels = (
            next((item[key] for key in keys if key in item), None) for keys in (_IMAGES, _LABELS)
        )
        form = f"a mapping with the keys {', '.join(map(repr, item))}"
    else:
        parts = list(item) if isinstance(item, tuple | list) else []
        images, labels = (*parts, None, None)[:2] if len(parts) in (1, 2) else (None, None)
        count = f" of {len(parts)}" if parts else ""
        form = f"a {type(item).__name__}{count}"
    if images is None:
        raise DataError(f"The loader gives {form}; it must give {_FORMS}.")
    return images, labels


def _one_class(
    labels: Tensor, classes: int | None
) -> tuple[Int[Tensor, " batch"], Float[Tensor, "batch classes"] | None]:
    """Return the class of each image, and the shares of classes if an image has several."""
    if labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool:
        # On a GPU, looking at the values would wait for it in every step.
        if classes is not None and not labels.is_cuda and len(labels):
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < UNLABELLED or highest >= classes:
                raise DataError(
                    f"The labels reach from {lowest} to {highest}, but the student has {classes} "
                    "logits, for classes from 0; -1 is an unknown class."
                )
        return labels.long(), None
    if labels.ndim != 2 or (classes is not None and labels.shape[1] != classes):
        kind = str(labels.dtype).removeprefix("torch.")
        raise DataError(
            f"Labels must be class numbers (batch,) or shares of {classes or 'all'} classes "
            f"(batch, classes), not {kind} of shape {tuple(labels.shape)}."
        )
    shares = labels.float()
    if bool(((shares < 0) | ~shares.isfinite()).any()) or bool(
        ((shares.sum(1) - 1).abs() > 1e-2).any()
    ):
        raise DataError(
            "Labels of one row per image are shares of the classes of one image, which must be at "
            "least 0 and sum to 1; for several classes an image use task 'multilabel'."
        )
    hard = shares.argmax(1)
    # A row of one 1 is an ordinary label, which every method can read.
    return hard, None if bool((shares.amax(1) == 1).all()) else shares


def _checked_rows(labels: Tensor, classes: int | None) -> Tensor:
    """Return labels of several classes an image, if each is 1, 0 or -1."""
    if labels.ndim != 2 or (classes is not None and labels.shape[1] != classes):
        raise DataError(
            f"Labels of several classes an image must be one row of {classes or 'all'} values for "
            f"each, (batch, classes), not of shape {tuple(labels.shape)}."
        )
    whole = (labels == 1) | (labels == 0) | (labels == UNLABELLED)
    if labels.is_floating_point() and not bool(whole.all()):
        raise DataError(
            "Labels of several classes an image must be 1 (present), 0 (absent) or -1 (not known); "
            "these have other values: leave mixup and smoothing of the labels out."
        )
    return labels
