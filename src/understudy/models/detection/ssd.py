"""Detectors that score the locations of single maps: SSD and SSDlite, read level by level.

Their maps have a width each, and student and teacher different ones. So every level is a group of
places of its own, with its own features, to which a method is fitted by itself.
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
    Detector,
    Resized,
    Targets,
    as_maps,
    named,
    rows_batch,
    watched,
)
from understudy.models.detection._patches import classes
from understudy.models.detection.embedding import EmbeddedScores


@dataclass(frozen=True)
class LevelLocations:
    """All locations of the maps of some resized images.

    Attributes:
        images: As the student resized them.
        grids: Height and width of the map of each level.
    """

    images: Resized
    grids: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.images.sizes) * sum(height * width for height, width in self.grids)


@final
class Grid(Detector):
    """SSD and SSDlite: `level1/penultimate` is what enters the last layer that scores a level.

    A row is a location of the level; levels follow each other. In SSDlite it is the vector behind
    the depthwise convolution, in SSD the patch that is scored. `logits` are the scores of all boxes
    of the location, a softmax each. The label is the class of the object that one of its boxes is
    matched to, 0 (background) without any.
    """

    module: SSD

    @cached_property
    def _boxes(self) -> list[int]:
        """How many boxes a location of each level has."""
        counts: list[int] = self.module.anchor_generator.num_anchors_per_location()
        return counts

    @property
    def shapes(self) -> Shapes:
        """Of the rows, which are those of several groups."""
        known = self._head.num_columns
        groups = {
            name: Shapes(
                f"{name} of {self.name}",
                {"penultimate": (layer.weight[0].numel(),), "logits": (layer.out_channels,)},
                exclusive_classes=False,
                classes=known,
                softmaxes=boxes,
            )
            for (name, layer), boxes in zip(self.scores.items(), self._boxes, strict=True)
        }
        flat = {f"{name}/{key}": x for name, part in groups.items() for key, x in part.items()}
        return Shapes(self.name, flat, exclusive_classes=False, classes=known, groups=groups)

    @property
    def num_classes(self) -> int:
        """Without the background."""
        return int(self._head.num_columns) - 1

    @property
    def classifier_weight(self) -> None:
        """None: every level has its own."""

    @property
    def classifier_bias(self) -> None:
        """None: every level has its own."""

    def group(self, name: str) -> "Level":
        """One level."""
        return Level(self, name)

    @property
    def _head(self) -> Any:
        return self.module.head.classification_head

    @property
    def _paths(self) -> dict[str, str]:
        """Where the layers that score each level are in the module."""
        inside = "head.classification_head.module_list"
        return {
            f"level{i + 1}": ".".join(filter(None, (inside, str(i), _last(level))))
            for i, level in enumerate(self._head.module_list)
        }

    @property
    def scores(self) -> dict[str, nn.Conv2d]:
        """The convolution that gives the scores of each level."""
        found = {}
        for name, path in self._paths.items():
            layer = self.module.get_submodule(path)
            found[name] = layer.classifier if isinstance(layer, EmbeddedScores) else layer
            assert isinstance(found[name], nn.Conv2d)
        return found

    def _trained(self, images: list[Tensor], targets: Targets) -> Observation:
        parts = {
            "transform": self.module.transform,
            "backbone": self.module.backbone,
            "anchors": self.module.anchor_generator,
        }
        with watched({**parts, **self.scores}) as calls:
            losses = self.module(images, targets)
        _, (resized, scaled) = calls["transform"][0]
        _, anchors = calls["anchors"][0]
        _, maps = calls["backbone"][0]
        grids = _grids(as_maps(maps))
        locations = LevelLocations(self._resized(resized), grids)
        features = self._rows(calls, self.shapes)
        return self._observation(features, locations, anchors, scaled, named(losses))

    def _sampled(self, images: Resized, targets: Targets) -> Observation:
        maps = self._maps(self._own(images))
        anchors = self.module.anchor_generator(images.listed, list(maps.values()))
        locations = LevelLocations(images, _grids(maps))
        return self._observation(self._read(maps, self.shapes), locations, anchors, targets, {})

    def _observation(
        self,
        features: Features,
        locations: LevelLocations,
        anchors: list[Tensor],
        targets: Targets,
        losses: dict[str, Tensor],
    ) -> Observation:
        labels = [
            self._labels(near, each, locations) for near, each in zip(anchors, targets, strict=True)
        ]
        by_level = [torch.cat(level) for level in zip(*labels, strict=True)]
        rows = next(iter(features.values()))
        return Observation(features, rows_batch(torch.cat(by_level), rows), losses, locations)

    def _labels(
        self, anchors: Tensor, target: Mapping[str, Tensor], locations: LevelLocations
    ) -> list[Tensor]:
        """Class at each location of each level of one image."""
        boxes, labels = target["boxes"], target["labels"]
        if len(boxes):
            matched = self.module.proposal_matcher(box_iou(boxes, anchors))
        else:
            matched = labels.new_full((len(anchors),), -1)
        counts = [
            height * width * each
            for (height, width), each in zip(locations.grids, self._boxes, strict=True)
        ]
        return [
            classes(objects.view(-1, each), near, boxes, labels)
            for objects, near, each in zip(
                torch.split(matched, counts), torch.split(anchors, counts), self._boxes, strict=True
            )
        ]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Features at another detector's locations; no boxes are computed.

        Raises:
            NetworkError: The maps of the two are of different sizes.
        """
        assert isinstance(locations, LevelLocations)
        maps = self._maps(self._own(locations.images))
        if _grids(maps) != locations.grids:
            raise NetworkError(
                f"The maps of {self.name} have {_written(_grids(maps))} locations where those of "
                f"the student have {_written(locations.grids)}: take a teacher whose maps have the "
                "strides of the student's."
            )
        return self._read(maps, self.shapes if reads is None else reads)

    def _read(self, maps: Mapping[str, Tensor], reads: Collection[str]) -> Features:
        with watched(self.scores) as calls:
            for level, x in zip(self._head.module_list, maps.values(), strict=True):
                level(x)
        return self._rows(calls, reads)

    def _rows(self, calls: Mapping[str, list[tuple[Any, Any]]], reads: Collection[str]) -> Features:
        found = {}
        for name, layer in self.scores.items():
            (entered,), scores = calls[name][0]
            if f"{name}/penultimate" in reads:
                found[f"{name}/penultimate"] = _vectors(entered, layer)
            found[f"{name}/logits"] = scores.permute(0, 2, 3, 1).flatten(0, 2)
        return found

    def plain(self) -> nn.Module:
        """A copy of the torchvision detector; embedding layers are folded into the scores."""
        copy = super().plain()
        for path in self._paths.values():
            layer = copy.get_submodule(path)
            if isinstance(layer, EmbeddedScores):
                copy.set_submodule(path, layer.fold())
        return copy

    def insert_saved_layers(self, state: Mapping[str, Tensor]) -> None:
        """Put in the embedding layers that a state dict has."""
        for group, path in self._paths.items():
            weight = state.get(f"{path}.embedding.weight")
            if weight is not None:
                self.embed_level(group, len(weight))

    def embed_level(self, group: str, dim: int) -> None:
        """Insert an embedding layer of width `dim` before the scores of a level, made anew.

        Raises:
            NetworkError: It has one of another width.
        """
        path = self._paths[group]
        layer = self.module.get_submodule(path)
        if isinstance(layer, nn.Conv2d):
            self.module.set_submodule(path, EmbeddedScores(layer, dim))
        elif self.shapes.groups[group].vector("penultimate") != dim:
            raise NetworkError(f"{group} of {self.name} has an embedding layer of another width.")


@final
class Level:
    """One level of a detector, as a method sees it.

    Args:
        detector: All of it.
        name: Of the level.
    """

    def __init__(self, detector: Grid, name: str) -> None:
        self._detector, self._name = detector, name

    @property
    def shapes(self) -> Shapes:
        """Of its rows."""
        return self._detector.shapes.groups[self._name]

    @property
    def module(self) -> nn.Module:
        """The whole detector."""
        found: nn.Module = self._detector.module
        return found

    @property
    def classifier_weight(self) -> Float[Tensor, "scores dim"]:
        """Weight of its scores, a row for each score of a location."""
        return self._detector.scores[self._name].weight.flatten(1)

    @property
    def classifier_bias(self) -> Float[Tensor, " scores"] | None:
        """Bias of its scores."""
        return self._detector.scores[self._name].bias

    def embed(self, dim: int) -> None:
        """Insert a linear embedding layer of width `dim` before the scores."""
        self._detector.embed_level(self._name, dim)

    def insert(self, feature: str, layer: nn.Module, taps: Mapping[str, str]) -> None:
        """Refused, as by the detector."""
        self._detector.insert(feature, layer, taps)

    def rehead(self, layer: nn.Module, classifier: nn.Linear) -> None:
        """Refused, as by the detector."""
        self._detector.rehead(layer, classifier)

    def depends_only_on_mean(self, feature: str) -> bool:
        """No."""
        return self._detector.depends_only_on_mean(feature)


def _last(level: nn.Module) -> str:
    """Path of the layer that scores a level; empty if that is the level itself."""
    layers: list[str] = [
        path for path, part in level.named_modules() if isinstance(part, nn.Conv2d | EmbeddedScores)
    ]
    embedded = [p for p in layers if isinstance(level.get_submodule(p), EmbeddedScores)]
    return (embedded or layers)[-1]


def _vectors(
    x: Float[Tensor, "batch channels height width"], layer: nn.Conv2d
) -> Float[Tensor, "rows dim"]:
    """What a convolution sees at each location."""
    if layer.kernel_size == (1, 1):
        return x.permute(0, 2, 3, 1).flatten(0, 2)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2).flatten(0, 1)


def _grids(maps: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    return [(x.shape[2], x.shape[3]) for x in maps.values()]


def _written(grids: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height} x {width}" for height, width in grids)
