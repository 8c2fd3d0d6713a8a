"""Images of any size shown with the boxes in them."""

from typing import Any, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.batch import Objects, padded
from understudy.data._random import counter_hash
from understudy.data._transforms import Augment, ScaleJitter, chosen, colour
from understudy.data.source import Source
from understudy.data.views import CLEAN, Views
from understudy.errors import DataError
from understudy.functional import seeded

_WHITE = torch.tensor(255.0)


@final
class ObjectViews(Views):
    """Whole images with their boxes, transformed together; the detector resizes them itself."""

    size = 0
    count = None

    def __init__(self, source: Source, *, augment: Augment, seed: int, jitter: float) -> None:
        self.source, self.seed = source, seed
        self.transform = v2.Compose(_steps(augment, jitter))
        self.description = f"{self.transform}, seed {seed}"

    def number(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, " batch"]:
        """The view's own number: -1 for `CLEAN`, which is not among them."""
        return view

    def __call__(
        self, index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Objects]:
        """View number `view` of each image, in the upper left corner of its place, with boxes."""
        seeds = counter_hash(self.seed, index, view).tolist()
        shown = [
            self._shown(i, v, s)
            for i, v, s in zip(index.tolist(), view.tolist(), seeds, strict=True)
        ]
        sizes = torch.tensor([image.shape[1:] for image, _ in shown])
        images = padded([image for image, _ in shown]) / _WHITE
        return images, _objects(sizes, [target for _, target in shown])

    def show(
        self, index: Int64[Tensor, " batch"], number: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Objects]:
        """The view of each image that has this number."""
        return self(index, number)

    def _shown(self, i: int, view: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
        image, target = tv_tensors.Image(self.source.image(i)), self.source.target(i)
        if target is None:
            raise DataError(
                "These images have no boxes to train a detector with: use a data source that has "
                "them, such as voc or coco."
            )
        if view != CLEAN:
            with seeded(seed):
                image, target = self.transform(image, target)
        return image.as_subclass(Tensor), target


def _steps(augment: Augment, jitter: float) -> list[v2.Transform]:
    steps: dict[Augment, list[v2.Transform]] = {
        "none": [],
        "flip": [v2.RandomHorizontalFlip()],
        "scale_jitter": [ScaleJitter(), v2.RandomHorizontalFlip()],
    }
    return chosen(steps, augment) + colour(jitter) or [v2.Identity()]


def _objects(sizes: Int64[Tensor, "batch 2"], targets: list[dict[str, Any]]) -> Objects:
    boxes = tuple(each["boxes"].as_subclass(Tensor).float() for each in targets)
    labels, difficult, crowd, areas = (
        tuple(each[key] for each in targets) for key in ("labels", "difficult", "crowd", "areas")
    )
    return Objects(sizes, boxes, labels, difficult, crowd, areas)
