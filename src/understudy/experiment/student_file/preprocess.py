"""Prepare a picture for a student exactly as its evaluation did."""

from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from understudy.data._image import rgb_tensor
from understudy.data.evaluation_view import EvaluationView
from understudy.errors import DataError
from understudy.experiment.student_file.config import Preprocessing
from understudy.models.preprocessing import Input

Picture = Image.Image | Tensor
"""An opened image, or its pixels as uint8 `(3, height, width)`."""


@final
class Preprocess:
    """Test transform of one picture, for a module that is used without its wrapper.

    Args:
        steps: What is to be done.
    """

    def __init__(self, steps: Preprocessing) -> None:
        self.steps = steps
        self._view = EvaluationView(
            steps.resize,
            steps.crop,
            squash=steps.squash,
            rounded=steps.rounded,
            reduced=steps.reduced,
        )
        mean = steps.mean or (0.0, 0.0, 0.0)
        std = steps.std or (1.0, 1.0, 1.0)
        self._input = Input(
            size=steps.network_size,
            mean=mean,
            std=std,
            interpolation=steps.network_interpolation,
        )
        self._mean, self._std = (torch.tensor(x).view(-1, 1, 1) for x in (mean, std))

    def __call__(self, picture: Picture) -> Float[Tensor, "channels height width"]:
        """Return a picture as the module takes it: normalised, or in [0, 1] for a detector.

        Raises:
            DataError: It is neither an image nor a uint8 tensor of three channels.
        """
        images = self._view(_pixels(picture))[None]
        if not self.steps.mean:
            return images[0]
        images = self._input.resize(self._input.unit_range(images))
        return ((images - self._mean) / self._std)[0]

    def __repr__(self) -> str:
        return f"Preprocess({self.steps})"


def ended_by(steps: Preprocessing, contract: Input) -> Preprocessing:
    """Return the same steps, but resized and normalised in the end as a network takes images."""
    return replace(
        steps,
        network_size=None if contract.size == steps.crop else contract.size,
        network_interpolation=contract.interpolation,
        mean=contract.mean,
        # A single deviation stands for all channels.
        std=contract.std if len(contract.std) > 1 else contract.std * contract.channels,
    )


def _pixels(picture: Picture) -> Tensor:
    if isinstance(picture, Image.Image):
        return rgb_tensor(picture)
    if not isinstance(picture, Tensor) or picture.dtype != torch.uint8 or picture.ndim != 3:
        kind = getattr(picture, "dtype", type(picture).__name__)
        raise DataError(
            f"A picture must be an image of Pillow or a uint8 tensor (3, height, width), not {kind}"
            f" of shape {tuple(getattr(picture, 'shape', ()))}."
        )
    if picture.shape[0] not in (1, 3):
        raise DataError(
            f"A picture must have 3 channels, red, green and blue, not {picture.shape[0]}."
        )
    return picture.expand(3, -1, -1)
