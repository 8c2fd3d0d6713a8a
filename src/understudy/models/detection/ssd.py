"""Wrapper of SSD and SSDlite, which score the locations of single maps, level by level.

The maps have different widths, which differ between student and teacher too. So every level is a
group of locations with its own features, and a method is built for each.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from understudy.errors import NetworkError
from understudy.features import Features, Locations, Observation, Shapes
from understudy.models.detection._detector import (
    Calls,
    Detector,
    Maps,
    ResizedImages,
    Targets,
    record_calls,
    rows_batch,
)
from understudy.models.detection._locations import location_classes
from understudy.models.detection.embedding import EmbeddedScores


@dataclass(frozen=True)
class LevelLocations:
    """All locations of the maps of resized images.

    Attributes:
        images: Images as the student resized them.
        grids: Height and width of the map of each level.
    """

    images: ResizedImages
    grids: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.images.sizes) * sum(height * width for height, width in self.grids)


@final
class SSDDetector(Detector):
    """SSD and SSDlite: `level1/penultimate` is the input of the last layer that scores level 1.

    A row is a location of the level; the rows of levels follow each other. In SSDlite `penultimate`
    is the vector behind the depthwise convolution, in SSD the patch that is scored. `logits` are
    the scores of all boxes of the location, with a softmax for each box. The label is the class of
    the object that one of the location's boxes is matched to, 0 (background) without any.
    """

    module: SSD

    @cached_property
    def _boxes(self) -> list[int]:
        """Number of boxes per location of each level."""
        counts: list[int] = self.module.anchor_generator.num_anchors_per_location()
        return counts

    @property
    def shapes(self) -> Shapes:
        """Shapes of the rows, in one group per level."""
        classes = self._head.num_columns
        groups = {
            name: Shapes(
                f"{name} of {self.name}",
                {"penultimate": (layer.weight[0].numel(),), "logits": (layer.out_channels,)},
                exclusive_classes=False,
                classes=classes,
                softmaxes=boxes,
                background=True,
            )
            for (name, layer), boxes in zip(self.scores.items(), self._boxes, strict=True)
        }
        flat = {
            f"{name}/{feature}": shape
            for name, shapes in groups.items()
            for feature, shape in shapes.items()
        }
        return Shapes(self.name, flat, exclusive_classes=False, classes=classes, groups=groups)

    @property
    def num_classes(self) -> int:
        """Number of classes, without the background."""
        return int(self._head.num_columns) - 1

    @property
    def classifier_weight(self) -> None:
        """None: every level has its own."""

    @property
    def classifier_bias(self) -> None:
        """None: every level has its own."""

    def group(self, name: str) -> "SSDLevel":
        """Return one level."""
        return SSDLevel(self, name)

    @property
    def _head(self) -> Any:
        return self.module.head.classification_head

    @property
    def _paths(self) -> dict[str, str]:
        """Level → path in the module of the layer that computes its scores."""
        parent = "head.classification_head.module_list"
        return {
            f"level{i + 1}": ".".join(filter(None, (parent, str(i), _score_path(branch))))
            for i, branch in enumerate(self._head.module_list)
        }

    @property
    def scores(self) -> dict[str, nn.Conv2d]:
        """Level → convolution that computes its scores."""
        layers = {}
        for level, path in self._paths.items():
            layer = self.module.get_submodule(path)
            layers[level] = layer.classifier if isinstance(layer, EmbeddedScores) else layer
            if not isinstance(layers[level], nn.Conv2d):
                raise NetworkError(
                    f"{self.name} computes the scores of {level} by a "
                    f"{type(layers[level]).__name__}, but methods read the input of one "
                    "convolution: let it end in one."
                )
        return layers

    def _observe_training(self, images: list[Tensor], targets: Targets) -> Observation:
        modules = {"anchors": self.module.anchor_generator, **self.scores}
        recorded = self._record_training(images, targets, modules)
        locations = LevelLocations(recorded.images, _grids(recorded.maps))
        rows = self._rows(recorded.calls, self.shapes)
        labels = self._labels(recorded.output("anchors"), recorded.targets, locations)
        batch = rows_batch(labels, next(iter(rows.values())))
        return Observation(rows, batch, recorded.losses, locations)

    def _observe_sampled(self, images: ResizedImages, targets: Targets, maps: Maps) -> Observation:
        anchors = self.module.anchor_generator(images.image_list, list(maps.values()))
        locations = LevelLocations(images, _grids(maps))
        rows = self._read(maps, locations, self.shapes)
        labels = self._labels(anchors, targets, locations)
        return Observation(rows, rows_batch(labels, next(iter(rows.values()))), {}, locations)

    def _labels(self, anchors: list[Tensor], targets: Targets, locations: LevelLocations) -> Tensor:
        """Return the class of every row: level by level, and image by image within a level."""
        by_image = [
            self._image_labels(boxes, target, locations)
            for boxes, target in zip(anchors, targets, strict=True)
        ]
        return torch.cat([torch.cat(level) for level in zip(*by_image, strict=True)])

    def _image_labels(
        self, anchors: Tensor, target: Mapping[str, Tensor], locations: LevelLocations
    ) -> list[Tensor]:
        """Return the class at each location of one image, for each level."""
        boxes, labels = target["boxes"], target["labels"]
        if len(boxes):
            matched = self.module.proposal_matcher(box_iou(boxes, anchors))
        else:
            matched = labels.new_full((len(anchors),), -1)
        counts = [
            height * width * per_location
            for (height, width), per_location in zip(locations.grids, self._boxes, strict=True)
        ]
        levels = zip(
            torch.split(matched, counts), torch.split(anchors, counts), self._boxes, strict=True
        )
        return [
            location_classes(objects.view(-1, per_location), level_anchors, boxes, labels)
            for objects, level_anchors, per_location in levels
        ]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Compute the features at another detector's locations, without boxes.

        Raises:
            NetworkError: The maps of the two detectors have different sizes.
        """
        assert isinstance(locations, LevelLocations)
        return self._read(
            self.maps(locations.images), locations, self.shapes if reads is None else reads
        )

    def _read(self, maps: Maps, locations: LevelLocations, reads: Collection[str]) -> Features:
        """Compute the rows of some names, and all logits, from the maps.

        Raises:
            NetworkError: The maps of the two detectors have different sizes.
        """
        if _grids(maps) != locations.grids:
            raise NetworkError(
                f"The maps of {self.name} have {_text(_grids(maps))} locations where those of "
                f"the student have {_text(locations.grids)}: take a teacher whose maps have the "
                "strides of the student's."
            )
        with record_calls(self.scores) as calls:
            for branch, x in zip(self._head.module_list, maps.values(), strict=True):
                branch(x)
        return self._rows(calls, reads)

    def _rows(self, calls: Calls, reads: Collection[str]) -> Features:
        """Return the rows of some names, and all logits, from recorded calls of `scores`."""
        features = {}
        for level, layer in self.scores.items():
            (x,), scores = calls[level][0]
            if f"{level}/penultimate" in reads:
                features[f"{level}/penultimate"] = _receptive_fields(x, layer)
            features[f"{level}/logits"] = scores.permute(0, 2, 3, 1).flatten(0, 2)
        return features

    def plain(self) -> nn.Module:
        """Return a copy of the detector, with embedding layers folded into the scores."""
        copy = super().plain()
        for path in self._paths.values():
            layer = copy.get_submodule(path)
            if isinstance(layer, EmbeddedScores):
                copy.set_submodule(path, layer.fold())
        return copy

    def insert_saved_layers(self, state: Mapping[str, Tensor]) -> None:
        """Insert the embedding layers that a state dict has; their values are not loaded."""
        for level, path in self._paths.items():
            weight = state.get(f"{path}.embedding.weight")
            if weight is not None:
                self.embed_level(level, len(weight))

    def embed_level(self, level: str, dim: int) -> None:
        """Insert an embedding layer of width `dim` before new scores of a level.

        Raises:
            NetworkError: The level has an embedding layer of another width.
        """
        path = self._paths[level]
        layer = self.module.get_submodule(path)
        if isinstance(layer, nn.Conv2d):
            self.module.set_submodule(path, EmbeddedScores(layer, dim))
        elif self.shapes.groups[level].vector("penultimate") != dim:
            raise NetworkError(f"{level} of {self.name} has an embedding layer of another width.")


@final
class SSDLevel:
    """One level of a detector: the group of locations that a method is built for.

    Args:
        detector: The detector.
        name: Name of the level.
    """

    def __init__(self, detector: SSDDetector, name: str) -> None:
        self._detector, self._name = detector, name

    @property
    def shapes(self) -> Shapes:
        """Shapes of the level's rows."""
        return self._detector.shapes.groups[self._name]

    @property
    def module(self) -> nn.Module:
        """The whole detector."""
        module: nn.Module = self._detector.module
        return module

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        """Weight of the level's scores, one row per score of a location."""
        return self._detector.scores[self._name].weight.flatten(1)

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        """Bias of the level's scores."""
        return self._detector.scores[self._name].bias

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before new scores."""
        self._detector.embed_level(self._name, dim)

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Refuse the layer, as the detector does."""
        self._detector.insert(feature, layer, taps)

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Refuse the head, as the detector does."""
        self._detector.rehead(layer, classifier)

    def depends_only_on_mean(self, feature: str) -> bool:
        """Return False, as the detector does."""
        return self._detector.depends_only_on_mean(feature)


def _score_path(branch: nn.Module) -> str:
    """Return the path of the layer that scores a level; "" if it is the branch itself."""
    paths: list[str] = [
        path
        for path, layer in branch.named_modules()
        if isinstance(layer, nn.Conv2d | EmbeddedScores)
    ]
    # The convolutions of an embedding layer come after it, but it is what scores the level.
    embedded = [path for path in paths if isinstance(branch.get_submodule(path), EmbeddedScores)]
    return (embedded or paths)[-1]


def _receptive_fields(
    x: Float[Tensor, "batch channels height width"], layer: nn.Conv2d
) -> Float[Tensor, "rows dim"]:
    """Return the inputs that a convolution reads at each location."""
    if layer.kernel_size == (1, 1):
        return x.permute(0, 2, 3, 1).flatten(0, 2)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2).flatten(0, 1)


def _grids(maps: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    return [(x.shape[2], x.shape[3]) for x in maps.values()]


def _text(grids: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in grids)
