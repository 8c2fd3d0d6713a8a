"""Test images that a run keeps, reduced and as text."""

import base64
import io
from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from understudy.data.loader import Loader
from understudy.data.views import CLEAN
from understudy.diagnostics.sample_images import spread

SCENES = 6
"""Images that are kept with what is in them, at most."""
PIXELS = 320
"""Longer side of these, at most."""


def encoded(
    image: Float[Tensor, "3 height width"], *, side: int, form: Literal["PNG", "JPEG"]
) -> str:
    """An image with values in [0, 1], reduced until no side is longer than `side`, in base64."""
    pixels = (255 * image).round().clamp(0, 255).byte().permute(1, 2, 0)
    picture, file = Image.fromarray(pixels.cpu().numpy()), io.BytesIO()
    picture.thumbnail((side, side))
    picture.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def chosen(candidates: Iterable[int]) -> list[int]:
    """Some of the candidates, spread evenly over all: the same ones for every student."""
    ordered = sorted(set(candidates))
    return [ordered[i] for i in spread(len(ordered), SCENES).tolist()]


def scene(test: Loader, index: int) -> dict[str, Any]:
    """A test image as it is kept, with the size that it had."""
    place = torch.tensor([index])
    number = test.views.number(place, torch.full_like(place, CLEAN))
    (image,) = next(iter(test.show([(place, number)])))
    return {
        "index": index,
        "height": image.shape[1],
        "width": image.shape[2],
        "picture": encoded(image, side=PIXELS, form="JPEG"),
    }
