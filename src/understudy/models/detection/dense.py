"""Detectors that score every location of their maps: RetinaNet and FCOS, read at those locations.

With 800 x 1088 pixels there are 18 134 locations an image, which the published mask nearly all
keeps: 167 MB of patches an image for the student, as much for the teacher. Beside them lshfm with
4096 hashes needs 0.3 GB for each of its tables. The balanced mask keeps some hundred.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, RetinaNet

from understudy.errors import NetworkError
from understudy.features import Features, Locations, Observation, Shapes
from understudy.models.detection._detector import (
    Resized,
    Targets,
    as_maps,
    named,
    rows_batch,
    watched,
)
from understudy.models.detection._patches import balanced, classes, patches, published
from understudy.models.detection._pyramid import OverPyramid, Shape

Mask = Literal["published", "balanced"]


@dataclass(frozen=True)
class DenseLocations:
    """Locations of the maps of some resized images.

    Attributes:
        images: As the student resized them.
        kept: Which locations are read, level by level and row by row.
    """

    images: Resized
    kept: Bool[Tensor, "batch locations"]

    def __len__(self) -> int:
        return int(self.kept.sum())


@final
class Dense(OverPyramid):
    """RetinaNet and FCOS: `penultimate` is a patch of the classification tower's last map.

    A row is a location. What scores it is a convolution, so that what enters its last layer are
    the 3 x 3 vectors around it; `logits` are the scores of all its anchors, anchor by anchor, each
    with a column for the background, which torchvision trains to be 0 everywhere. The label is the
    class of the object that one of its anchors is matched to, 0 without any. Images without boxes
    have no rows.

    Args:
        module: The detector.
        name: What errors and tables call it.
        mask: Locations that are read: with `published` all but those that the detector's own loss
            ignores, 997 of 1000 of them background; with `balanced` those of objects and three of
            the background for each. In a recipe `student.options.mask`.

    Raises:
        NetworkError: There is no such mask, or its class scores come from anything but a
            convolution of 3 x 3.
    """

    module: RetinaNet | FCOS

    def __init__(self, module: nn.Module, *, name: str = "", mask: Mask = "published") -> None:
        super().__init__(module, name=name)
        if mask not in get_args(Mask):
            raise NetworkError(
                f"The mask of {self.name} is {mask!r}; it can be: {', '.join(get_args(Mask))}."
            )
        self.mask = mask
        if self._scores.kernel_size != (3, 3):
            raise NetworkError(
                f"The class scores of {self.name} come from a convolution of "
                f"{self._scores.kernel_size}, where dense detectors are read in patches of 3 x 3."
            )

    def _with_rows(self, maps: Mapping[str, Shape]) -> Shapes:
        weight = self.classifier_weight
        rows = {"penultimate": weight.shape[1:], "logits": weight.shape[:1]}
        known = self._head.num_classes
        return Shapes(self.name, {**maps, **rows}, exclusive_classes=False, classes=known)

    def _scored(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self._scores(self._head.conv(each)) for each in maps]

    @property
    def num_classes(self) -> int:
        """Without the background."""
        return int(self._head.num_classes) - 1

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"]:
        """Weight of the class scores, a row for each score of a location."""
        return self._scores.weight.flatten(1)

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"] | None:
        """Bias of the class scores."""
        return self._scores.bias

    @property
    def _head(self) -> Any:
        return self.module.head.classification_head

    @property
    def _scores(self) -> nn.Conv2d:
        found = self._head.cls_logits
        assert isinstance(found, nn.Conv2d)
        return found

    def _trained(self, images: list[Tensor], targets: Targets) -> Observation:
        parts = {
            "transform": self.module.transform,
            "backbone": self.module.backbone,
            "anchors": self.module.anchor_generator,
            "tower": self._head.conv,
            "levels": self._scores,
            "scores": self._head,
        }
        with watched(parts) as calls, _matching(self.module.head) as matched:
            losses = self.module(images, targets)
        _, (resized, scaled) = calls["transform"][0]
        _, anchors = calls["anchors"][0]
        _, scores = calls["scores"][0]
        _, maps = calls["backbone"][0]
        locations, labels = self._places(self._resized(resized), matched, anchors, scaled)
        features = {
            **self._named(as_maps(maps).values()),
            **self._named((level for _, level in calls["levels"]), "/scores"),
            "penultimate": patches([tower for _, tower in calls["tower"]], locations.kept),
            "logits": scores.reshape(*locations.kept.shape, -1)[locations.kept],
        }
        rows = rows_batch(labels, features["penultimate"])
        return Observation(features, rows, named(losses), locations)

    def _sampled(self, images: Resized, targets: Targets) -> Observation:
        maps = self._maps(self._own(images))
        levels = list(maps.values())
        anchors = self.module.anchor_generator(images.listed, levels)
        with _matching(self.module.head, loss=False) as matched:
            if isinstance(self.module, FCOS):
                sizes = [each.shape[2] * each.shape[3] for each in levels]
                self.module.compute_loss(targets, {}, anchors, sizes)
            else:
                self.module.compute_loss(targets, {}, anchors)
        locations, labels = self._places(images, matched, anchors, targets)
        features = self._read(maps, locations, self.shapes)
        return Observation(features, rows_batch(labels, features["penultimate"]), {}, locations)

    def _places(
        self, images: Resized, matched: list[Tensor], anchors: list[Tensor], targets: Targets
    ) -> tuple[DenseLocations, Tensor]:
        """Where to read, and the class at each of these locations."""
        found = torch.unflatten(torch.stack(matched), 1, (-1, self._head.num_anchors))
        if self.mask == "balanced":
            kept = balanced(found, _inside(anchors, found.shape[1], images))
        else:
            kept = published(found)
        seen = [
            classes(objects, near, each["boxes"], each["labels"])
            for objects, near, each in zip(found, anchors, targets, strict=True)
        ]
        there = torch.tensor([len(each["boxes"]) > 0 for each in targets], device=kept.device)
        kept = kept & there.unsqueeze(1)
        return DenseLocations(images, kept), torch.stack(seen)[kept]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Features at another detector's locations; neither boxes nor anchors are computed.

        Raises:
            NetworkError: The maps of the two are of different sizes.
        """
        assert isinstance(locations, DenseLocations)
        maps = self._maps(self._own(locations.images))
        return self._read(maps, locations, self.shapes if reads is None else reads)

    def _read(
        self, maps: dict[str, Tensor], locations: DenseLocations, reads: Collection[str]
    ) -> Features:
        levels = list(maps.values())
        own, asked = sum(each.shape[2] * each.shape[3] for each in levels), locations.kept.shape[1]
        if own != asked:
            raise NetworkError(
                f"{self.name} has {own} locations in an image where the student has {asked}: take "
                "a teacher whose maps have the strides of the student's."
            )
        found = self._named(levels)
        if any(name.endswith("/scores") for name in reads):
            found |= self._named(self._scored(levels), "/scores")
        if "penultimate" in reads or "logits" in reads:
            found["penultimate"] = patches(
                [self._head.conv(each) for each in levels], locations.kept
            )
        if "logits" in reads:
            scores = self.classifier_weight, self.classifier_bias
            found["logits"] = F.linear(found["penultimate"], *scores)
        return found


def _inside(
    anchors: list[Tensor], locations: int, images: Resized
) -> Bool[Tensor, "batch locations"]:
    """Which locations are in their image, not in what pads it."""
    first = torch.unflatten(torch.stack(anchors), 1, (locations, -1))[:, :, 0]
    sizes = torch.tensor(images.sizes, device=first.device).flip(1).unsqueeze(1)
    inside: Tensor = ((first[..., :2] + first[..., 2:]) / 2 < sizes).all(2)
    return inside


@contextmanager
def _matching(head: Any, *, loss: bool = True) -> Iterator[list[Tensor]]:
    """The object of each anchor, image by image, as a detector tells its head to compute losses.

    Without `loss` the head computes none.
    """
    matched: list[Tensor] = []
    own = head.compute_loss

    def told(targets: Any, outputs: Any, anchors: Any, found: list[Tensor]) -> dict[str, Tensor]:
        matched.extend(found)
        return own(targets, outputs, anchors, found) if loss else {}

    head.compute_loss = told
    try:
        yield matched
    finally:
        del head.compute_loss
