"""Some of the shipped images as files in folders: so few that measuring a student takes a moment.

    data: {source: folder, root: CLOTHES}

reads 600 training and 100 test images of ten kinds of clothes, 32 pixels wide.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from understudy.data.sources import fashion

TRAIN, TEST = 60, 10
"""Images of each class."""


def _written() -> Path:
    """Write the images into a folder that is deleted when this process ends."""
    root, owner = Path(tempfile.mkdtemp(prefix="clothes")), os.getpid()
    for split, count in (("train", TRAIN), ("test", TEST)):
        source = fashion.load("", split)  # type: ignore[arg-type]
        for label, name in enumerate(source.classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in (source.labels == label).nonzero().flatten()[:count].tolist():
                pixels = source.image(number).permute(1, 2, 0).contiguous().numpy()
                Image.fromarray(pixels).save(folder / f"{number:05}.bmp")

    @atexit.register
    def delete() -> None:
        if os.getpid() == owner:  # not a fork of it
            shutil.rmtree(root, ignore_errors=True)

    return root


CLOTHES = str(_written())
