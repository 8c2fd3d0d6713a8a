"""Views for detection: whole images of any size with their boxes."""

from typing import Any, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.batch import Objects, padded
from understudy.data._random import counter_hash
from understudy.data._transforms import (
    Augment,
    MovedTogether,
    ScaleJitter,
    colour_jitter,
    select,
)
from understudy.data._transforms_check import check_with_boxes
from understudy.data.evaluation_view import WHOLE_IMAGE
from understudy.data.named_transforms import NONE, NamedTransforms
from understudy.data.source import Source
from understudy.data.views import CLEAN, Views
from understudy.functional import seeded

_WHITE = torch.tensor(255.0)
_FINITE: dict[Augment, int] = {"none": 1, "flip": 2}
"""Number of different views of an image."""


@final
class ObjectViews(Views):
    """Whole images and their boxes, transformed together; the detector resizes them itself.

    The source has boxes (`Source.target`) for every image. Images that are only mirrored, or not
    even that, have two views or one.
    """

    size = 0
    evaluation = WHOLE_IMAGE

    def __init__(
        self,
        source: Source,
        *,
        augment: Augment,
        seed: int,
        jitter: float,
        named: NamedTransforms = NONE,
    ) -> None:
        """Build the transforms, and try those that are `named` on an image of noise.

        Raises:
            DataError: The jitter is negative, or the augmentation would change images without their
                boxes.
            RecipeError: A named transform moves no boxes, or returns no image.
        """
        self.source, self.seed = source, seed
        self.transform = v2.Compose(_transforms(augment, jitter))
        self._first, self._last = MovedTogether(named.first), MovedTogether(named.last)
        fixed = not (jitter or named)
        self.count = _FINITE.get(augment) if fixed else None
        self.description = (
            f"{self.transform}, {self.count} views"
            if self.count
            else f"{self.transform}, seed {seed}"
        )
        if named:
            self.description += f"; transforms: {named.description}"
            check_with_boxes(self._first)
            check_with_boxes(self._last)

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Return 1 for a mirrored view and 0 for any other; the view itself where they are endless.

        Endlessly many views number `CLEAN` as -1.
        """
        if self.count is None:
            return view
        if self.count == 1:
            return torch.zeros_like(view)
        seeds = counter_hash(self.seed, index, view).tolist()
        mirrored = torch.tensor([_is_mirrored(seed) for seed in seeds], dtype=torch.bool)
        return (mirrored & (view != CLEAN)).long()

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Objects]:
        """Return view `view` of each image with its boxes.

        Every image lies in the upper left corner of its row of the batch, padded with zeros.
        """
        seeds = counter_hash(self.seed, index, view).tolist()
        pairs = [
            self._pair(i, v, s)
            for i, v, s in zip(index.tolist(), view.tolist(), seeds, strict=True)
        ]
        return _batched(pairs)

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Objects]:
        """Return the view of each image that has this number."""
        if self.count is None:
            return self(index, number)
        rows = zip(index.tolist(), number.tolist(), strict=True)
        return _batched(
            [_mirrored(*self._pair(i, CLEAN, 0)) if n else self._pair(i, CLEAN, 0) for i, n in rows]
        )

    def _pair(self, i: int, view: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
        image, target = tv_tensors.Image(self.source.image(i)), self.source.target(i)
        if view != CLEAN:
            with seeded(seed):
                for transform in (self._first, self.transform, self._last):
                    image, target = transform(image, target)
        return image.as_subclass(Tensor), target


def _transforms(augment: Augment, jitter: float) -> list[v2.Transform]:
    steps: dict[Augment, list[v2.Transform]] = {
        "none": [],
        "flip": [v2.RandomHorizontalFlip()],
        "scale_jitter": [ScaleJitter(), v2.RandomHorizontalFlip()],
    }
    # Compose refuses an empty list.
    return select(steps, augment) + colour_jitter(jitter) or [v2.Identity()]


def _is_mirrored(seed: int) -> bool:
    """Return True if torchvision's random flip mirrors an image under this seed."""
    return bool(torch.rand(1, generator=torch.Generator().manual_seed(seed)) < 0.5)


def _mirrored(image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    boxes = v2.functional.horizontal_flip(target["boxes"])
    return image.flip(-1), target | {"boxes": boxes}


def _batched(pairs: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, Objects]:
    """Return images and targets as a batch, padded to one size."""
    sizes = torch.tensor([image.shape[1:] for image, _ in pairs])
    return _stacked([image for image, _ in pairs]), _objects(sizes, [x for _, x in pairs])


def _stacked(images: list[Tensor]) -> Float[Tensor, "batch 3 height width"]:
    """Return images as a batch of floats; named transforms may have made some floats already."""
    if all(image.dtype == torch.uint8 for image in images):
        return padded(images) / _WHITE
    return padded([x / _WHITE if x.dtype == torch.uint8 else x.float() for x in images])


def _objects(sizes: Int64[Tensor, "batch 2"], targets: list[dict[str, Any]]) -> Objects:
    boxes = tuple(target["boxes"].as_subclass(Tensor).float() for target in targets)
    labels, difficult, crowd, areas = (
        tuple(target[key] for target in targets)
        for key in ("labels", "difficult", "crowd", "areas")
    )
    return Objects(sizes, boxes, labels, difficult, crowd, areas)
