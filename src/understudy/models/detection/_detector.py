"""Base class of the wrappers of torchvision's detectors, which hooks read and nothing changes."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
from understudy.models.detection._frozen import frozen_copy
from understudy.models.detection.classes import keep_columns
from understudy.models.taps import eval_mode

Targets = list[dict[str, Tensor]]
"""`boxes` and `labels` of each image in torchvision's form: class 0 is the background."""

Calls = Mapping[str, list[tuple[Any, Any]]]
"""Name of a module → positional arguments and output of each of its calls."""


@dataclass(frozen=True)
class ResizedImages:
    """Images as a detector resized, normalised and padded them.

    Attributes:
        tensors: All images, each in the upper left corner of its padded area.
        sizes: Height and width of each image without padding.
        mean: Mean that was subtracted from each channel.
        std: Standard deviation that each channel was divided by.
    """

    tensors: Float[Tensor, "batch 3 height width"]
    sizes: list[tuple[int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_list(self) -> ImageList:
        """The images in the form that parts of torchvision's detectors take."""
        return ImageList(self.tensors, self.sizes)

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        """Return the images normalised by another mean and deviation; the padding stays 0."""
        if (mean, std) == (self.mean, self.std):
            return self.tensors
        old_mean, old_std, new_mean, new_std = (
            self.tensors.new_tensor(x).view(-1, 1, 1) for x in (self.mean, self.std, mean, std)
        )
        images = (self.tensors * old_std + old_mean - new_mean) / new_std
        padded = torch.zeros_like(images)
        for target, image, (height, width) in zip(padded, images, self.sizes, strict=True):
            target[:, :height, :width] = image[:, :height, :width]
        return padded


@dataclass(frozen=True)
class RecordedPass:
    """A detector's own forward pass in training, and what hooks recorded of it.

    Attributes:
        losses: torchvision's losses, named `task/…`.
        images: Images as the detector resized them.
        targets: Boxes and labels, in pixels of the resized images.
        maps: Maps of the backbone by name.
        calls: Arguments and output of each call of the recorded modules.
    """

    losses: dict[str, Tensor]
    images: ResizedImages
    targets: Targets
    maps: dict[str, Tensor]
    calls: Calls

    def arguments(self, module: str) -> tuple[Any, ...]:
        """Return the arguments of a module's first call."""
        arguments: tuple[Any, ...] = self.calls[module][0][0]
        return arguments

    def output(self, module: str) -> Any:
        """Return the output of a module's first call."""
        return self.calls[module][0][1]

    def outputs(self, module: str) -> list[Any]:
        """Return the outputs of all calls of a module, such as one for each map."""
        return [output for _, output in self.calls[module]]


class Detector(Wrapped):
    """Wrapper of a torchvision detector, with features at the locations that its losses use.

    Args:
        module: The detector.
        name: Name for errors and tables; default: the module's class.
    """

    module: Any

    def __init__(self, module: nn.Module, *, name: str = "") -> None:
        super().__init__()
        self.module = module
        self.name = name or type(module).__name__

    def observe(self, batch: Batch) -> Observation:
        """Return the detector's own losses, equal to torchvision's to the bit, and features.

        In evaluation mode there are no losses.
        """
        if self.training:
            return self._observe_training(*inputs(batch))
        return self.observe_for_prepare(batch, self)

    def observe_for_task(self, batch: Batch) -> Observation:
        """Return the detector's own losses, without features; in evaluation mode nothing."""
        if not self.training:
            return Observation({}, batch)
        return Observation({}, batch, named_losses(self.module(*inputs(batch))))

    def observe_for_prepare(self, batch: Batch, student: Wrapped) -> Observation:
        """Return features at the detector's own locations in images that the student resizes."""
        assert isinstance(student, Detector)
        # Detectors draw locations at random; what a method measures depends on the images alone.
        with seeded(int(batch.index[0]), batch.index.device):
            with eval_mode(student.module.transform):
                images, targets = student.module.transform(*inputs(batch))
            return self._observe_sampled(student._resized(images), targets)

    @abstractmethod
    def _observe_training(self, images: list[Tensor], targets: Targets) -> Observation:
        """Run the detector's own training forward pass; return its losses and features."""

    @abstractmethod
    def _observe_sampled(self, images: ResizedImages, targets: Targets) -> Observation:
        """Return features at the locations that training would use, without losses."""

    def frozen_reader(self, precision: torch.dtype | None) -> FeatureReader:
        """Return `at` of a copy in which what depends on the weights alone is precomputed."""
        return frozen_copy(self, precision).at

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Features:
        """Detect objects: return `boxes`, `scores`, `classes` (from 0) and `image`, a row each.

        `image` is the index of the image that a box is in.
        """
        images, _ = inputs(batch)
        detections = self.module(images)
        counts = torch.tensor([len(x["boxes"]) for x in detections], device=batch.index.device)
        classes = torch.cat([x["labels"] for x in detections]) - 1
        columns = {
            "boxes": torch.cat([x["boxes"] for x in detections]),
            "scores": torch.cat([x["scores"] for x in detections]),
            "classes": classes,
            "image": batch.index.repeat_interleave(counts),
        }
        # Dense detectors score the background as a class, and may detect it early in training.
        return {name: column[classes >= 0] for name, column in columns.items()}

    def insert_saved_layers(self, state: Mapping[str, Tensor]) -> None:
        """Insert the layers that a state dict was saved with; most detectors take none."""

    def plain(self) -> nn.Module:
        """Return a copy of the torchvision detector in evaluation mode."""
        copy: nn.Module = deepcopy(self.module)
        return copy.eval()

    def select_classes(self, rows: Sequence[int]) -> None:
        """Keep some of the classes, in a given order, behind the background."""
        keep_columns(self.module, [0, *(1 + row for row in rows)])
        for cached in ("_shapes", "_levels"):
            vars(self).pop(cached, None)

    def copy_classifier(self, other: Wrapped) -> None:
        """Do nothing: no method makes a new head for a detector."""

    def _record_training(
        self, images: list[Tensor], targets: Targets, modules: Mapping[str, nn.Module]
    ) -> RecordedPass:
        """Run the detector's own training forward pass; record the calls of some modules."""
        detector = self.module
        watched = {"transform": detector.transform, "backbone": detector.backbone, **modules}
        with record_calls(watched) as calls:
            losses = detector(images, targets)
        _, (resized, scaled) = calls["transform"][0]
        _, maps = calls["backbone"][0]
        return RecordedPass(
            named_losses(losses), self._resized(resized), scaled, as_maps(maps), calls
        )

    def _maps(self, images: ResizedImages) -> dict[str, Tensor]:
        """Compute the backbone's maps of images that another detector may have normalised."""
        return as_maps(self.module.backbone(images.normalised(*self._statistics)))

    def _resized(self, images: ImageList) -> ResizedImages:
        return ResizedImages(images.tensors, images.image_sizes, *self._statistics)

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the detector's own normalisation."""
        transform = self.module.transform
        assert isinstance(transform, GeneralizedRCNNTransform)
        return tuple(transform.image_mean), tuple(transform.image_std)


def as_maps(output: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a backbone's output as maps by name; it may be a single map."""
    return {"0": output} if isinstance(output, Tensor) else output


def inputs(batch: Batch) -> tuple[list[Tensor], Targets]:
    """Return images and targets of a batch in torchvision's form.

    Difficult objects and crowds are left out of the targets.

    Raises:
        NetworkError: The batch has no objects.
    """
    objects, targets = batch.objects, []
    if objects is None:
        raise NetworkError(
            "A detector needs boxes, which these images do not have: use a data source that has "
            "them, such as voc, coco or yolo, and --task detection."
        )
    for boxes, labels, difficult, crowd in zip(
        objects.boxes, objects.labels, objects.difficult, objects.crowd, strict=True
    ):
        kept = ~(difficult | crowd)
        # torchvision counts classes from 1.
        targets.append({"boxes": boxes[kept], "labels": labels[kept] + 1})
    sizes = objects.sizes.tolist()
    images = [x[:, :h, :w] for x, (h, w) in zip(batch.images, sizes, strict=True)]
    return images, targets


def named_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's losses to `task/…`, without `loss_`."""
    return {f"task/{name.removeprefix('loss_')}": x for name, x in losses.items()}


def rows_batch(labels: Tensor, rows: Tensor) -> Batch:
    """Return a batch of rows of features, with their labels and without images.

    Args:
        labels: Class of each row.
        rows: Features of some of the rows, for the data type.
    """
    index = torch.arange(len(labels), device=labels.device)
    return Batch(rows.new_empty(len(labels), 3, 0, 0), labels, index, torch.zeros_like(index))


@contextmanager
def record_calls(modules: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """Record arguments and output of every call of some modules while the context lasts."""
    calls: dict[str, list[tuple[Any, Any]]] = {name: [] for name in modules}

    def recorder(name: str) -> Any:
        return lambda module, args, output: calls[name].append((args, output))

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
