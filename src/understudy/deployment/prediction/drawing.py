"""Draw the boxes of a detector into copies of the pictures."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import matplotlib
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes

from understudy.deployment.prediction.pictures import Item
from understudy.deployment.prediction.predictions import Boxes
from understudy.deployment.prediction.predictor import Answer
from understudy.errors import RunError
from understudy.files import write_error

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b58900", "#56b4e9", "#882255")
"""Colours of classes, repeated where there are more; those of the charts of a report."""
_WRITTEN = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes that keep their format; of others a PNG is written."""


@final
class Drawing:
    """Writes pictures with boxes into a folder, under their own names.

    Args:
        folder: Folder to write; folders of the pictures that differ are kept apart in it.
        items: All pictures.
    """

    def __init__(self, folder: Path, items: Sequence[Item]) -> None:
        self._folder = folder
        parents = {str(x.content.resolve().parent) for x in items if isinstance(x.content, Path)}
        try:
            self._top = Path(os.path.commonpath(parents)) if parents else Path()
        except ValueError:  # on several drives of Windows
            self._top = Path()

    def draw(self, answer: Answer) -> Path:
        """Write one picture with its boxes, and return the file.

        Raises:
            RunError: The picture itself would be overwritten, or the folder cannot be written.
        """
        prediction, pixels = answer.prediction, answer.pixels
        assert isinstance(prediction, Boxes)  # those of a detector
        assert pixels is not None
        original = Path(prediction.name).resolve()
        file = self._file(original)
        if file.resolve() == original:
            raise RunError(f"{file} would be overwritten: give another folder by --draw.")
        image = _drawn(prediction, pixels) if prediction.boxes else pixels
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
        except OSError as error:
            raise write_error(
                error, file, image.nbytes, key="--draw", again="draw again"
            ) from error
        return file

    def _file(self, original: Path) -> Path:
        inside = original.is_relative_to(self._top)
        relative = original.relative_to(self._top) if inside else Path(original.name)
        file = self._folder / relative
        return file if file.suffix.lower() in _WRITTEN else file.with_name(f"{file.name}.png")


def _drawn(prediction: Boxes, pixels: torch.Tensor) -> torch.Tensor:
    """Return a picture with boxes and names, of lines that show at its size."""
    side = max(prediction.width, prediction.height)
    named = zip(prediction.labels, prediction.scores, strict=True)
    names = [f"{label} {score:.2f}" for label, score in named]
    colours = [_COLOURS[number % len(_COLOURS)] for number in prediction.numbers]
    drawn: torch.Tensor = draw_bounding_boxes(
        pixels.contiguous(),
        # The best one last, so that no name covers its own.
        torch.tensor(prediction.boxes).flip(0),
        labels=names[::-1],
        colors=colours[::-1],
        width=max(2, round(side / 250)),
        # torchvision draws in 10 pixels, whatever the picture, unless it is given a font.
        font=str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"),
        font_size=max(9, round(side / 45)),
        label_colors="white",
        fill_labels=True,
    )
    return drawn
