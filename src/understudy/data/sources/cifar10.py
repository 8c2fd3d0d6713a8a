"""CIFAR-10: 60,000 photos of 32×32 pixels in 10 classes (Krizhevsky 2009).

The root is a folder in torchvision's format, into which the data are downloaded if missing, or a
folder `{train,test}/<class>/` of the same images, with a validation split as in `folder`.
"""

from torchvision.datasets import CIFAR10

from understudy.data.source import Source, Split, Unreadable
from understudy.data.sources import _cifar

SPLITS = ("train", "validation", "test")


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the images of one split; `DataError` if they are missing and cannot be downloaded."""
    return _cifar.load(CIFAR10, root, split, classes=10, unreadable=unreadable)
