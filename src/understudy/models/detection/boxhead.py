"""Detectors with a head for boxes: Faster R-CNN, read at the proposals its losses look at."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from understudy.features import Features, Locations, Observation, Shapes
from understudy.models.detection._detector import (
    Resized,
    Targets,
    as_maps,
    named,
    rows_batch,
    watched,
)
from understudy.models.detection._pyramid import OverPyramid, Shape


@dataclass(frozen=True)
class Proposals:
    """Boxes in some resized images.

    Attributes:
        images: As the student resized them.
        boxes: Of each image, in its pixels.
    """

    images: Resized
    boxes: list[Float[Tensor, "boxes 4"]]

    def __len__(self) -> int:
        return sum(map(len, self.boxes))


@final
class BoxHead(OverPyramid):
    """Faster R-CNN: `penultimate` is what enters its box predictor, `logits` the class scores.

    A row is a proposal that the student sampled for its own loss, background included; the teacher
    pools the same boxes from maps of its own. Class 0 is the background, here as in torchvision.
    The maps that proposals are pooled from are `p2`, `p3` and so on, by their strides; what is
    scored at each of their positions is whether there is an object (`p2/scores`).
    """

    module: FasterRCNN

    def _with_rows(self, maps: Mapping[str, Shape]) -> Shapes:
        weight = self._scores.weight
        rows = {"penultimate": weight.shape[1:], "logits": weight.shape[:1]}
        return Shapes(self.name, {**maps, **rows})

    def _scored(self, maps: Sequence[Tensor]) -> list[Tensor]:
        objectness, _ = self.module.rpn.head(list(maps))
        return objectness  # type: ignore[no-any-return]

    @property
    def num_classes(self) -> int:
        """Without the background."""
        return len(self._scores.weight) - 1

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"]:
        """Weight of the class scores."""
        return self._scores.weight

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"]:
        """Bias of the class scores."""
        return self._scores.bias

    @property
    def _scores(self) -> torch.nn.Linear:
        found = self.module.roi_heads.box_predictor.cls_score
        assert isinstance(found, torch.nn.Linear)
        return found

    def _trained(self, images: list[Tensor], targets: Targets) -> Observation:
        heads = self.module.roi_heads
        with watched(
            {
                "transform": self.module.transform,
                "backbone": self.module.backbone,
                "objectness": self.module.rpn.head,
                "pool": heads.box_roi_pool,
                "head": heads.box_head,
                "predictor": heads.box_predictor,
            }
        ) as calls:
            losses = self.module(images, targets)
        _, (resized, scaled) = calls["transform"][0]
        (_, boxes, _), _ = calls["pool"][0]
        _, rows = calls["head"][0]
        _, (logits, _) = calls["predictor"][0]
        _, maps = calls["backbone"][0]
        _, (objectness, _) = calls["objectness"][0]
        labels = self._labels(boxes, scaled)
        locations = Proposals(self._resized(resized), boxes)
        features = self._named(as_maps(maps).values()) | self._named(objectness, "/scores")
        features |= {"penultimate": rows, "logits": logits}
        return _observation(features, labels, locations, losses)

    def _sampled(self, images: Resized, targets: Targets) -> Observation:
        maps = self._maps(self._own(images))
        boxes, _ = self.module.rpn(images.listed, maps)
        boxes, _, labels, _ = self.module.roi_heads.select_training_samples(boxes, targets)
        locations = Proposals(images, boxes)
        return _observation(self._read(maps, locations, self.shapes), labels, locations, {})

    def _labels(self, boxes: list[Tensor], targets: Targets) -> list[Tensor]:
        """Class of each sampled proposal, once more: the detector keeps it to itself."""
        truth = [each["boxes"].to(boxes[0].dtype) for each in targets]
        _, labels = self.module.roi_heads.assign_targets_to_proposals(
            boxes, truth, [each["labels"] for each in targets]
        )
        return labels  # type: ignore[no-any-return]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Features of another detector's proposals; it makes none of its own."""
        assert isinstance(locations, Proposals)
        maps = self._maps(self._own(locations.images))
        return self._read(maps, locations, self.shapes if reads is None else reads)

    def _read(
        self, maps: dict[str, Tensor], locations: Proposals, reads: Collection[str]
    ) -> Features:
        found, heads = self._named(maps.values()), self.module.roi_heads
        if any(name.endswith("/scores") for name in reads):
            found |= self._named(self._scored(list(maps.values())), "/scores")
        if "penultimate" in reads or "logits" in reads:
            pooled = heads.box_roi_pool(maps, locations.boxes, locations.images.sizes)
            found["penultimate"] = heads.box_head(pooled)
        if "logits" in reads:
            found["logits"] = self._scores(found["penultimate"])
        return found


def _observation(
    features: Features, labels: list[Tensor], locations: Proposals, losses: dict[str, Tensor]
) -> Observation:
    return Observation(
        features,
        rows_batch(torch.cat(labels), features["penultimate"]),
        named(losses),
        locations,
    )
