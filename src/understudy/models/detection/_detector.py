"""A torchvision detector as Understudy sees it: never forked, only watched."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from understudy.batch import Batch
from understudy.errors import NetworkError
from understudy.features import Features, Observation
from understudy.functional import seeded
from understudy.models.base import FeatureReader, Wrapped
from understudy.models.detection._frozen import frozen
from understudy.models.taps import eval_mode

Targets = list[dict[str, Tensor]]
"""Boxes and labels of each image, as torchvision wants them: class 0 is the background."""


@dataclass(frozen=True)
class Resized:
    """Images as a detector resized, normalised and padded them.

    Attributes:
        tensors: All images, each in the upper left corner of its place.
        sizes: Height and width of each.
        mean: What was subtracted from each channel.
        std: What each channel was divided by.
    """

    tensors: Float[Tensor, "batch 3 height width"]
    sizes: list[tuple[int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def listed(self) -> ImageList:
        """As parts of torchvision's detectors take them."""
        return ImageList(self.tensors, self.sizes)

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        """The same images by another network's mean and deviation; what is padded stays 0."""
        if (mean, std) == (self.mean, self.std):
            return self.tensors
        theirs, spread, own, scale = (
            self.tensors.new_tensor(x).view(-1, 1, 1) for x in (self.mean, self.std, mean, std)
        )
        again = (self.tensors * spread + theirs - own) / scale
        blank = torch.zeros_like(again)
        for place, image, (height, width) in zip(blank, again, self.sizes, strict=True):
            place[:, :height, :width] = image[:, :height, :width]
        return blank


class Detector(Wrapped):
    """A torchvision detector, with features of the places that its own losses look at.

    Args:
        module: The detector.
        name: What errors and tables call it.
    """

    module: Any

    def __init__(self, module: nn.Module, *, name: str = "") -> None:
        super().__init__()
        self.module = module
        self.name = name or type(module).__name__

    def observe(self, batch: Batch) -> Observation:
        """Losses of the detector itself, bit for bit, and features where they were computed."""
        return (
            self._trained(*inputs(batch))
            if self.training
            else self.observe_for_prepare(batch, self)
        )

    def observe_for_task(self, batch: Batch) -> Observation:
        """Losses of the detector itself, which is read nowhere."""
        if not self.training:
            return Observation({}, batch)
        return Observation({}, batch, named(self.module(*inputs(batch))))

    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Features where it would look itself, in the images as the student resizes them."""
        assert isinstance(student, Detector)
        # Detectors sample at random; what a method measures depends on the images alone.
        with seeded(int(batch.index[0]), batch.index.device):
            with eval_mode(student.module.transform):
                images, targets = student.module.transform(*inputs(batch))
            return self._sampled(student._resized(images), targets)

    @abstractmethod
    def _trained(self, images: list[Tensor], targets: Targets) -> Observation:
        """The detector's own forward pass in training, watched."""

    @abstractmethod
    def _sampled(self, images: Resized, targets: Targets) -> Observation:
        """Features at the places a trained detector would look at in training; no losses."""

    def frozen_reader(self, precision: torch.dtype | None) -> FeatureReader:
        """`at` of a copy from which all that depends on weights alone is gone."""
        return frozen(self, precision).at

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Features:
        """Detections of all images: `boxes`, `scores`, `classes` (from 0) and `image`.

        `image` is the number of the image that the box of the same row is in.
        """
        images, _ = inputs(batch)
        found = self.module(images)
        counts = torch.tensor([len(each["boxes"]) for each in found], device=batch.index.device)
        classes = torch.cat([each["labels"] for each in found]) - 1
        seen = {
            "boxes": torch.cat([each["boxes"] for each in found]),
            "scores": torch.cat([each["scores"] for each in found]),
            "classes": classes,
            "image": batch.index.repeat_interleave(counts),
        }
        # Dense detectors score the background as a class, which early in training may be found.
        return {name: column[classes >= 0] for name, column in seen.items()}

    def insert_saved_layers(self, state: Mapping[str, Tensor]) -> None:
        """Put in the layers that a state dict has beyond the detector's own; most take none."""

    def plain(self) -> nn.Module:
        """A copy of the torchvision detector."""
        copy: nn.Module = deepcopy(self.module)
        return copy.eval()

    def copy_classifier(self, other: Wrapped) -> None:
        """No method makes a new head for a detector."""

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        return as_maps(self.module.backbone(images))

    @property
    def _transform(self) -> GeneralizedRCNNTransform:
        found = self.module.transform
        assert isinstance(found, GeneralizedRCNNTransform)
        return found

    def _resized(self, images: ImageList) -> Resized:
        mean, std = (tuple(x) for x in (self._transform.image_mean, self._transform.image_std))
        return Resized(images.tensors, images.image_sizes, mean, std)

    def _own(self, images: Resized) -> Tensor:
        """Another detector's images as this one wants them."""
        mean, std = (tuple(x) for x in (self._transform.image_mean, self._transform.image_std))
        return images.normalised(mean, std)


def as_maps(found: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What a backbone gives, which may be a single map."""
    return {"0": found} if isinstance(found, Tensor) else found


def inputs(batch: Batch) -> tuple[list[Tensor], Targets]:
    """Images and targets of a batch, as torchvision wants them.

    Difficult objects and crowds are no targets.

    Raises:
        NetworkError: The batch tells of no objects.
    """
    if batch.objects is None:
        raise NetworkError(
            "A detector needs boxes, which these images do not have: use a data source that has "
            "them, such as voc or coco, and --task detection."
        )
    there, targets = batch.objects, []
    for boxes, labels, difficult, crowd in zip(
        there.boxes, there.labels, there.difficult, there.crowd, strict=True
    ):
        sought = ~(difficult | crowd)
        targets.append({"boxes": boxes[sought], "labels": labels[sought] + 1})
    sizes = there.sizes.tolist()
    images = [x[:, :h, :w] for x, (h, w) in zip(batch.images, sizes, strict=True)]
    return images, targets


def named(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses of a torchvision detector by the names that they have here."""
    return {f"task/{name.removeprefix('loss_')}": x for name, x in losses.items()}


def rows_batch(labels: Tensor, rows: Tensor) -> Batch:
    """Locations as a batch: of no images, but with labels."""
    index = torch.arange(len(labels), device=labels.device)
    return Batch(rows.new_empty(len(rows), 3, 0, 0), labels, index, torch.zeros_like(index))


@contextmanager
def watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[tuple[Any, Any]]]]:
    """Inputs and output of every call of some modules, while the context lasts."""
    calls: dict[str, list[tuple[Any, Any]]] = {name: [] for name in modules}

    def keep(name: str) -> Any:
        return lambda module, args, output: calls[name].append((args, output))

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
