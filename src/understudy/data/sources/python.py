"""Images that a program gives by the argument `data=` of train, distill, compare and evaluate.

`data=` is a dataset of torch or Hugging Face, a pair (images, labels) of arrays, or a tuple of the
training, test and validation images. A recipe of this source names no files: whoever uses its run
directory later gives the data again, or names files by `data.source` and `data.root`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from understudy.data.own_data import OwnData
from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources._annotated import Difficult
from understudy.data.sources._annotations import Faulty
from understudy.data.sources._splits import NoSplit
from understudy.errors import DataError

SPLITS = ("train", "validation", "test")
_GIVEN: ContextVar[OwnData | None] = ContextVar("data", default=None)


@contextmanager
def giving(data: OwnData) -> Iterator[None]:
    """Let this source have the data of a program meanwhile."""
    token = _GIVEN.set(data)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def load(
    root: str,
    split: Split,
    *,
    unreadable: Unreadable = "skip",
    faulty: Faulty = "repair",
    difficult: Difficult = "ignore",
) -> Source:
    """Return the images of one split of the data that a program gives.

    Raises:
        NoSplit: They have no such split.
        DataError: There are no such data, or they cannot be used.
    """
    data = _GIVEN.get()
    if data is None:
        raise DataError(
            "These images came from a program, by data=: give them again in Python, such as "
            "understudy.evaluate(run, data=test_set), or name files by --data.source and "
            "--data.root."
        )
    if difficult != "ignore":
        raise DataError(
            "data.difficult is about flags of VOC's files, which data= does not have: leave it out."
        )
    if split not in data:
        remedy = (
            "give (train, test), or keep a share of the training images by data.validation"
            if split == "test"
            else "give them in their place of the tuple"
        )
        raise NoSplit(f"data= has no {split} images: {remedy}.")
    return data.source(split, unreadable=unreadable, faulty=faulty)
