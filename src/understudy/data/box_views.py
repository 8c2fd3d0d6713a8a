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


@final
class ObjectViews(Views):
    """Whole images and their boxes, transformed together; the detector resizes them itself.

    The source has boxes (`Source.target`) for every image.
    """

    size = 0
    count = None
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
        self.description = f"{self.transform}, seed {seed}"
        if named:
            self.description += f"; transforms: {named.description}"
            check_with_boxes(self._first)
            check_with_boxes(self._last)

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """Return the view number itself; -1 for `CLEAN`."""
        return view

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
        sizes = torch.tensor([image.shape[1:] for image, _ in pairs])
        return _stacked([image for image, _ in pairs]), _objects(
            sizes, [target for _, target in pairs]
        )

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Objects]:
        """Return the view of each image that has this number."""
        return self(index, number)

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
