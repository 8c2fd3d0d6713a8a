"""The graph to export: a network, on request with preprocessing before it and probabilities behind.

Nothing of these modules stays in an exported file, which holds operations and weights alone.
"""

import math
from copy import deepcopy
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.config.image_size import Size, sides
from understudy.errors import NetworkError
from understudy.experiment.student_file.config import Preprocessing
from understudy.models.preprocessing import Input

Preparation = Literal["outside", "inside", "inside-float"]
"""Where images are prepared: before the graph; in it, of uint8 pictures; or of pictures in 0–1."""


LONGEST_SIDE = 8192
"""Longest side in pixels of an image that an exported detector takes."""


_KEEPS_THE_SHORTER = "2.8"
"""Release of torch that exports the shorter of two free sides, not the one of the example."""


@final
class Prepared(nn.Module):
    """Whole pictures of one size, any size → resized, cropped and normalised.

    Resized values are not rounded as Pillow rounds them: of values halfway between two whole
    numbers, two programs would round some up and some down.

    Args:
        steps: What was done to the test images.
        bytes: True for pictures of uint8; False for values in [0, 1].

    Raises:
        NetworkError: The test images were reduced before, by as much as their size asked for; this
            release of torch would resize upright pictures as if they lay.
    """

    def __init__(self, steps: Preprocessing, *, bytes: bool) -> None:
        super().__init__()
        if steps.reduced is not None:
            raise NetworkError(
                f"The test images were reduced to a side of {steps.reduced} first "
                "(data.decoded_side), which depends on the size of each and cannot be part of the "
                "graph: export with --preprocessing outside."
            )
        if steps.resize and not steps.squash and torch.__version__ < _KEEPS_THE_SHORTER:
            raise NetworkError(
                f"torch {torch.__version__} exports the side that was the shorter one in its "
                "example for the shorter side of all pictures: install torch "
                f"{_KEEPS_THE_SHORTER} or newer, or export with --preprocessing outside."
            )
        self.steps, self.bytes = steps, bytes
        self.input = Input(
            size=steps.network_size,
            mean=steps.mean,
            std=steps.std,
            interpolation=steps.network_interpolation,
        )
        for name, values in (("mean", steps.mean), ("std", steps.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Prepare a batch of pictures."""
        images = pictures.float()
        if self.bytes:
            images = images / 255
        if self.steps.resize is not None:
            size = self._resized_sides(images, self.steps.resize)
            images = self._resized(images, size).clamp(0, 1)
        if self.steps.crop is not None:
            images = _centre(images, sides(self.steps.crop))
        images = self.input.resize(self.input.unit_range(images))
        return (images - self.get_buffer("mean")) / self.get_buffer("std")

    def _resized_sides(self, images: Tensor, size: Size) -> list[int]:
        """Return height and width of resized images; whole numbers, which an exporter can trace."""
        height, width = images.shape[-2:]
        if self.steps.squash:
            return list(sides(size))
        if isinstance(size, int):
            shorter: Any = torch.sym_min(height, width)
            return [size * height // shorter, size * width // shorter]
        # Both sides divided by the lesser of the ratios height / rows and width / columns.
        rows, columns = size
        divisor: Any = torch.sym_min(height * columns, width * rows)
        return [_rounded(side * rows * columns, divisor) for side in (height, width)]

    def _resized(self, images: Tensor, size: list[int]) -> Tensor:
        return F.interpolate(
            images,
            size,
            mode=self.steps.interpolation,
            align_corners=False,
            antialias=self.steps.antialias,
        )


def _rounded(number: int, divisor: int) -> int:
    """Return a quotient, rounded as Python's `round` does, which takes halves to even numbers."""
    whole, rest = number // divisor, number % divisor
    return whole + (2 * rest + whole % 2 + divisor - 1) // (2 * divisor)


def _centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the centre where torchvision does, which rounds halves to even numbers."""
    lengths = images.shape[-2:]
    # Gathered, not sliced: of a slice the exporter does not know that its size is fixed.
    rows, columns = (
        torch.arange(side) + _margin(length - side)
        for side, length in zip(size, lengths, strict=True)
    )
    return images.index_select(2, rows).index_select(3, columns)


def _margin(rest: int) -> int:
    return rest // 2 + (rest % 2) * ((rest // 2) % 2)


@final
class Graph(nn.Module):
    """Preparation, network and probabilities, one after the other.

    Args:
        network: Takes normalised images, and returns a tensor or an output that holds `logits`.
        before: Prepares the images; None if they come prepared.
        probabilities: What turns scores into probabilities: `softmax` for one class of an image,
            `sigmoid` for several, "" for none.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        before: nn.Module | None = None,
        probabilities: Literal["", "softmax", "sigmoid"] = "",
    ) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.network = network
        self.probabilities = probabilities

    def forward(self, images: Tensor) -> Tensor:
        """Compute scores, probabilities or vectors."""
        output = single_tensor(self.network(self.before(images)))
        if self.probabilities == "softmax":
            return output.softmax(1)
        return output.sigmoid() if self.probabilities == "sigmoid" else output


@final
class Detections(nn.Module):
    """One image `(3, height, width)` with values in [0, 1] → boxes, labels and scores.

    Args:
        detector: A detector of torchvision.
        traced: For an exporter that traces: images of up to `LONGEST_SIDE` pixels are then resized
            as without a trace. In one, torchvision computes their size in single precision, and
            some become a pixel larger or smaller.
    """

    def __init__(self, detector: nn.Module, *, traced: bool = False) -> None:
        super().__init__()
        self.detector = deepcopy(detector) if traced else detector
        transform: Any = self.detector.get_submodule("transform")
        if traced and transform.fixed_size is None:
            limits = transform.min_size[-1], transform.max_size
            transform.resize = partial(_resized, *map(_table, limits))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects; the label 0 is the background."""
        (detections,) = self.detector([image])
        return detections["boxes"], detections["labels"], detections["scores"]


_UNIT = 2**40
"""Scales are whole numbers of this share: the classic exporter has no double precision."""


def _table(limit: int) -> Tensor:
    """Return, by the length of a side that is to become `limit`, its size and the scale."""
    scales = [limit / max(length, 1) for length in range(LONGEST_SIDE + 1)]
    rows = [[int(n * scale), math.ceil(scale * _UNIT)] for n, scale in enumerate(scales)]
    return torch.tensor(rows)


def _resized(
    of_shorter: Tensor, of_longer: Tensor, image: Tensor, target: Any = None
) -> tuple[Tensor, Any]:
    """Resize an image as `GeneralizedRCNNTransform` does, by the `_table` of each side."""
    sides = torch._shape_as_tensor(image)[-2:]
    shorter, longer = of_shorter[sides.min()], of_longer[sides.max()]
    by_shorter = shorter[1] <= longer[1]
    limiting = torch.where(by_shorter, sides.min(), sides.max())
    length, scale = torch.where(by_shorter, shorter, longer).unbind()
    scaled = torch.div(sides * scale, _UNIT, rounding_mode="floor")
    size: Any = torch.where(sides == limiting, length, scaled)
    resized = F.interpolate(image[None], [size[0], size[1]], mode="bilinear", align_corners=False)
    return resized[0], target


def single_tensor(output: object) -> Tensor:
    """Return the one tensor of a network's output that is deployed.

    Raises:
        NetworkError: It holds several, and none is called `logits` or `pooler_output`.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "pooler_output"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value.flatten(1)
    raise NetworkError(
        f"The student returns {type(output).__name__}, of which it is not known what to export: "
        "let its forward pass return the tensor of its scores."
    )
