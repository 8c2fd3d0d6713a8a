"""Wrapper of Faster R-CNN, with features at the proposals that its box losses use."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign

from understudy.errors import NetworkError
from understudy.features import Features, Locations, Observation, Shapes
from understudy.models.detection._detector import Maps, ResizedImages, Targets, rows_batch
from understudy.models.detection._pyramid import PyramidDetector, Shape


@dataclass(frozen=True)
class Proposals:
    """Boxes in resized images.

    Attributes:
        images: Images as the student resized them.
        boxes: Boxes of each image, in pixels of the resized image.
    """

    images: ResizedImages
    boxes: list[Float[Tensor, "boxes 4"]]

    def __len__(self) -> int:
        return sum(map(len, self.boxes))


@final
class FasterRCNNDetector(PyramidDetector):
    """Faster R-CNN: `penultimate` is the input of its box predictor, `logits` the class scores.

    A row is a proposal that the student sampled for its own loss, background included; the teacher
    pools the same boxes from its own maps. Class 0 is the background, as in torchvision. The maps
    that proposals are pooled from are named `p2`, `p3` and so on, by their strides; the scores at
    each of their positions are those of objectness (`p2/scores`).
    """

    module: FasterRCNN

    def _with_rows(self, shapes: Mapping[str, Shape]) -> Shapes:
        weight = self._scores.weight
        rows = {"penultimate": weight.shape[1:], "logits": weight.shape[:1]}
        return Shapes(self.name, {**shapes, **rows}, background=True)

    def _map_scores(self, maps: Sequence[Tensor]) -> list[Tensor]:
        objectness, _ = self.module.rpn.head(list(maps))
        return objectness  # type: ignore[no-any-return]

    @property
    def num_classes(self) -> int:
        """Number of classes, without the background."""
        return len(self._scores.weight) - 1

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"]:
        """Weight of the class scores, the background's included."""
        return self._scores.weight

    @property
    def classifier_bias(self) -> Float[Tensor, " classes"]:
        """Bias of the class scores."""
        return self._scores.bias

    @property
    def _scores(self) -> torch.nn.Linear:
        layer = getattr(self.module.roi_heads.box_predictor, "cls_score", None)
        if not isinstance(layer, torch.nn.Linear):
            raise NetworkError(
                f"The box predictor of {self.name} computes class scores by a "
                f"{type(layer).__name__}, but methods read the input of one linear layer: name a "
                "linear layer `cls_score`, and put the layers before it into the box head."
            )
        return layer

    def _observe_training(self, images: list[Tensor], targets: Targets) -> Observation:
        heads = self.module.roi_heads
        modules = {
            "objectness": self.module.rpn.head,
            "pool": heads.box_roi_pool,
            "head": heads.box_head,
            "predictor": heads.box_predictor,
        }
        recorded = self._record_training(images, targets, modules)
        _, boxes, _ = recorded.arguments("pool")
        objectness, _ = recorded.output("objectness")
        logits, _ = recorded.output("predictor")
        features = {
            **self._by_map(recorded.maps.values()),
            **self._by_map(objectness, "/scores"),
            "penultimate": recorded.output("head"),
            "logits": logits,
        }
        labels = self._labels(boxes, recorded.targets)
        return _observation(features, labels, Proposals(recorded.images, boxes), recorded.losses)

    def _observe_sampled(self, images: ResizedImages, targets: Targets, maps: Maps) -> Observation:
        boxes, _ = self.module.rpn(images.image_list, maps)
        boxes, _, labels, _ = self.module.roi_heads.select_training_samples(boxes, targets)
        proposals = Proposals(images, boxes)
        return _observation(self._read(maps, proposals, self.shapes), labels, proposals, {})

    def _labels(self, boxes: list[Tensor], targets: Targets) -> list[Tensor]:
        """Return the class of each sampled proposal.

        torchvision's detector has computed it in its forward pass, but does not return it.
        """
        true_boxes = [target["boxes"].to(boxes[0].dtype) for target in targets]
        _, labels = self.module.roi_heads.assign_targets_to_proposals(
            boxes, true_boxes, [target["labels"] for target in targets]
        )
        return labels  # type: ignore[no-any-return]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Compute the features at another detector's proposals; this one makes none of its own."""
        assert isinstance(locations, Proposals)
        maps = self.maps(locations.images)
        return self._read(maps, locations, self.shapes if reads is None else reads)

    def _read(
        self, maps: dict[str, Tensor], proposals: Proposals, reads: Collection[str]
    ) -> Features:
        """Compute the features of some names at proposals, from the maps."""
        features, heads = self._by_map(maps.values()), self.module.roi_heads
        if any(name.endswith("/scores") for name in reads):
            features |= self._by_map(self._map_scores(list(maps.values())), "/scores")
        if "penultimate" in reads or "logits" in reads:
            features["penultimate"] = heads.box_head(self._pooled(maps, proposals))
        if "logits" in reads:
            features["logits"] = self._scores(features["penultimate"])
        return features

    def _pooled(self, maps: dict[str, Tensor], proposals: Proposals) -> Tensor:
        """Pool the maps at proposals, which a student under autocast gives in lower precision."""
        pool, boxes, sizes = (
            self.module.roi_heads.box_roi_pool,
            proposals.boxes,
            proposals.images.sizes,
        )
        dtype = next(iter(maps.values())).dtype
        if isinstance(pool, MultiScaleRoIAlign) and boxes[0].dtype != dtype:
            # Both in full precision, as in torchvision under autocast; the result as the maps.
            maps = {name: x.float() for name, x in maps.items()}
            boxes = [x.float() for x in boxes]
        pooled: Tensor = pool(maps, boxes, sizes)
        return pooled.to(dtype)


def _observation(
    features: Features, labels: list[Tensor], proposals: Proposals, losses: dict[str, Tensor]
) -> Observation:
    rows = rows_batch(torch.cat(labels), features["penultimate"])
    return Observation(features, rows, losses, proposals)
