"""Part of Fashion-MNIST, shipped with Understudy: ten kinds of clothes, 10,000 + 2,500 images.

The first 1,000 training and 250 test images of each class, in their original order, as published
by Zalando Research (Xiao, Rasul, Vollgraf 2017, https://github.com/zalandoresearch/fashion-mnist,
MIT licence, which lies beside the data). The grey 28×28 images are padded by two black pixels and
repeated in three channels. `embedded/fashion_mnist.npz` holds the arrays `{train,test}_images`,
`{train,test}_labels` and `classes` in the layout of `numpy.savez`, but compressed by LZMA.
"""

from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from understudy.data.source import MemorySource, Source, Split, Unreadable
from understudy.data.sources._unread_root import unread

_SIZE = 32


def load(root: str, split: Split, *, unreadable: Unreadable = "skip") -> Source:
    """Load the embedded images of one split; all of them are readable.

    Raises:
        DataError: There is a `root`, whose images would be taken for these.
    """
    if root:
        raise unread(root, "fashion", "its images are shipped with Understudy")
    grey, labels, classes = _unpacked(split)
    margin = (_SIZE - grey.shape[-1]) // 2
    pixels = F.pad(grey, (margin,) * 4).unsqueeze(1).repeat(1, 3, 1, 1)
    return MemorySource(pixels, labels.clone(), classes)


# A process may read them for many runs, and unpacking takes longer than a short one.
@cache
def _unpacked(
    split: Split,
) -> tuple[UInt8[Tensor, "images 28 28"], Int64[Tensor, " images"], tuple[str, ...]]:
    """Unpack grey images, labels and class names of one split, once in a process."""
    with (
        as_file(files("understudy.data") / "embedded" / "fashion_mnist.npz") as path,
        np.load(path) as arrays,
    ):
        grey = torch.from_numpy(arrays[f"{split}_images"])
        labels = torch.from_numpy(arrays[f"{split}_labels"]).long()
        return grey, labels, tuple(arrays["classes"].tolist())
