"""Base class of the wrappers of torchvision's detectors, which hooks read and nothing changes."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
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
from understudy.models.base import Wrapped
from understudy.models.detection._frozen import frozen_copy
from understudy.models.detection.classes import keep_columns
from understudy.models.taps import eval_mode

Targets = list[dict[str, Tensor]]
"""`boxes` and `labels` of each image in torchvision's form: class 0 is the background."""

Maps = dict[str, Tensor]
"""Maps of a backbone by name, the finest first."""

_PADDING_SIDE = 512
"""Side in pixels of the image whose maps are those of padding."""

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

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width to which the images are padded."""
        height, width = self.tensors.shape[2:]
        return height, width

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
        return self._observe_prepared(batch, student, self.maps)

    def observe_maps(
        self, batch: Batch, student: Wrapped, maps: Sequence[Maps], padding: Maps
    ) -> Observation:
        """Return what `observe_for_prepare` does, from maps of each image alone; see `at_maps`."""
        return self._observe_prepared(
            batch, student, lambda images: self._joined(maps, padding, images.canvas)
        )

    def _observe_prepared(
        self, batch: Batch, student: Wrapped, maps_of: Callable[[ResizedImages], Maps]
    ) -> Observation:
        assert isinstance(student, Detector)
        # Detectors draw locations at random; what a method measures depends on the images alone.
        with seeded(int(batch.index[0]), batch.index.device):
            with eval_mode(student.module.transform):
                images, targets = student.module.transform(*inputs(batch))
            resized = student._resized(images)
            return self._observe_sampled(resized, targets, maps_of(resized))

    @abstractmethod
    def _observe_training(self, images: list[Tensor], targets: Targets) -> Observation:
        """Run the detector's own training forward pass; return its losses and features."""

    @abstractmethod
    def _observe_sampled(self, images: ResizedImages, targets: Targets, maps: Maps) -> Observation:
        """Return features at the locations that training would use, without losses."""

    def frozen(self, precision: torch.dtype | None) -> "Detector":
        """Return a copy in which what depends on the weights alone is precomputed."""
        return frozen_copy(self, precision)

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

    def maps(self, images: ResizedImages) -> Maps:
        """Compute the backbone's maps of images that another detector may have normalised."""
        return as_maps(self.module.backbone(images.normalised(*self._statistics)))

    def map_shapes(self, canvas: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the backbone's maps of one image, padded to height and width."""
        if canvas not in self._map_shapes:
            image = torch.empty(1, 3, *canvas, device="meta")
            with torch.no_grad():
                maps = as_maps(self._shapes_only(image))
            self._map_shapes[canvas] = {name: tuple(x.shape[1:]) for name, x in maps.items()}
        return self._map_shapes[canvas]

    @cached_property
    def _map_shapes(self) -> dict[tuple[int, int], dict[str, tuple[int, ...]]]:
        """Shapes of maps by canvas, as far as they were asked for: a step needs them again."""
        return {}

    @cached_property
    def _shapes_only(self) -> Any:
        """The backbone without memory: it computes shapes alone."""
        return deepcopy(self.module.backbone).to("meta").eval()

    def resized_as(self, student: "Detector", images: Sequence[Tensor]) -> ResizedImages:
        """Return images as a student resizes them, normalised for this detector.

        The student's choice among several sides is not made: the last one counts.
        """
        transform = copy(student.module.transform)
        transform.training = False
        transform.image_mean, transform.image_std = map(list, self._statistics)
        resized, _ = transform(list(images))
        return self._resized(resized)

    def at_maps(
        self, maps: Sequence[Maps], padding: Maps, locations: Any, reads: Collection[str]
    ) -> Features:
        """Compute the features at another detector's locations from maps of each image alone.

        Args:
            maps: For each image what `maps` gave for it alone, without the dimension of the batch.
            padding: Vector of each map where an image is padded to the size of the batch.
            locations: `Observation.locations` of that detector.
            reads: Names of the features to compute; the result may hold more.
        """
        joined = self._joined(maps, padding, locations.images.canvas)
        return self._read(joined, locations, reads)

    def _joined(self, maps: Sequence[Maps], padding: Maps, canvas: tuple[int, int]) -> Maps:
        """Return the maps of a batch, each padded to those of its images' canvas."""
        joined = {}
        for name, shape in self.map_shapes(canvas).items():
            own = [each[name] for each in maps]
            if any(x.shape != shape for x in own):
                whole = padding[name].view(-1, 1, 1).expand(len(own), *shape).clone()
                for target, x in zip(whole, own, strict=True):
                    target[:, : x.shape[1], : x.shape[2]] = x
                joined[name] = whole
            else:
                joined[name] = torch.stack(own)
        return joined

    def padding(self) -> Maps:
        """Return the vector of each map in the middle of an image that is nothing but padding."""
        image = torch.zeros(1, 3, _PADDING_SIDE, _PADDING_SIDE, device=self.device)
        sizes = [(_PADDING_SIDE, _PADDING_SIDE)]
        maps = self.maps(ResizedImages(image, sizes, *self._statistics))
        return {name: x[0, :, x.shape[2] // 2, x.shape[3] // 2] for name, x in maps.items()}

    @abstractmethod
    def _read(self, maps: Maps, locations: Any, reads: Collection[str]) -> Features:
        """Compute the features of some names at locations, from the maps of a batch."""

    def _resized(self, images: ImageList) -> ResizedImages:
        return ResizedImages(images.tensors, images.image_sizes, *self._statistics)

    @property
    def normalisation(self) -> str:
        """Mean and standard deviation that the detector normalises by, in words."""
        mean, std = self._statistics
        return f"mean {mean}, std {std}"

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
    return images_of(batch), targets


def images_of(batch: Batch) -> list[Float[Tensor, "3 height width"]]:
    """Return the images of a batch with objects, each without its padding."""
    assert batch.objects is not None
    sizes = batch.objects.sizes.tolist()
    return [x[:, :h, :w] for x, (h, w) in zip(batch.images, sizes, strict=True)]


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
