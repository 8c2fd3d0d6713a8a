"""CIFAR-10: 60,000 photos of 32×32 pixels in 10 classes (Krizhevsky 2009).

The root is torchvision's own folder, into which the data are downloaded if need be, or a folder
`{train,test}/<class>/` of the same images.
"""

from typing import Literal

from torchvision.datasets import CIFAR10

from understudy.data.source import Source
from understudy.data.sources import _cifar


def load(
    root: str, split: Literal["train", "test"], *, unreadable: Literal["skip", "fail"] = "skip"
) -> Source:
    """The images of one split; `DataError` if they are not there and cannot be downloaded."""
    return _cifar.load(CIFAR10, root, split, classes=10, unreadable=unreadable)
