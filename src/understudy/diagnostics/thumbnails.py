"""Sample test images, reduced and encoded as text."""

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

SAMPLES = 6
"""Maximum number of stored images."""
PIXELS = 320
"""Maximum length of their longer side."""


def encoded(
    image: Float[Tensor, "3 height width"], *, side: int, form: Literal["PNG", "JPEG"]
) -> str:
    """Return an image with values in [0, 1] in base64, no side longer than `side` pixels."""
    pixels = (255 * image).round().clamp(0, 255).byte().permute(1, 2, 0)
    picture, file = Image.fromarray(pixels.cpu().numpy()), io.BytesIO()
    picture.thumbnail((side, side))
    picture.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def sample_indices(candidates: Iterable[int]) -> list[int]:
    """Return evenly spaced candidates, so that every student gets the same ones."""
    ordered = sorted(set(candidates))
    return [ordered[i] for i in spread(len(ordered), SAMPLES).tolist()]


def sample(test: Loader, index: int) -> dict[str, Any]:
    """Return a reduced test image with its index and its original size."""
    place = torch.tensor([index])
    number = test.views.number(place, torch.full_like(place, CLEAN))
    (image,) = next(iter(test.show([(place, number)])))
    return {
        "index": index,
        "height": image.shape[1],
        "width": image.shape[2],
        "picture": encoded(image, side=PIXELS, form="JPEG"),
    }
