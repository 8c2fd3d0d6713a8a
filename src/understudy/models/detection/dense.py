"""Wrapper of RetinaNet and FCOS, which score every location of their maps and are read there.

An image of 800 x 1088 pixels has 18 134 locations, nearly all of which the published mask keeps:
167 MB of patches per image for the student, and as much for the teacher. In addition lshfm with
4096 hashes needs 0.3 GB for each of its tables. The balanced mask keeps some hundred locations.
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
from understudy.models.detection._detector import Maps, ResizedImages, Targets, rows_batch
from understudy.models.detection._locations import (
    balanced_mask,
    extract_patches,
    location_classes,
    published_mask,
)
from understudy.models.detection._pyramid import PyramidDetector, Shape

Mask = Literal["published", "balanced"]
"""Choice of the locations to read: see `DenseDetector`."""


@dataclass(frozen=True)
class DenseLocations:
    """Locations of the maps of resized images.

    Attributes:
        images: Images as the student resized them.
        kept: True for the locations that are read; ordered by level, row and column.
    """

    images: ResizedImages
    kept: Bool[Tensor, "batch locations"]

    def __len__(self) -> int:
        return int(self.kept.sum())


@final
class DenseDetector(PyramidDetector):
    """RetinaNet and FCOS: `penultimate` is a patch of the classification tower's last map.

    A row is a location. Its scores come from a convolution, whose input are the 3 x 3 vectors
    around the location; `logits` are the scores of all its anchors, anchor by anchor, each with a
    column for the background, which torchvision trains to be 0 everywhere. The label is the class
    of the object that one of its anchors is matched to, 0 without any. Images without boxes have no
    rows.

    Args:
        module: The detector.
        name: Name for errors and tables; default: the module's class.
        mask: Locations that are read: `published` reads all but those that the detector's own loss
            ignores, 997 of 1000 of them background; `balanced` reads those of objects and three of
            the background for each. In a recipe `student.options.mask`.

    Raises:
        NetworkError: There is no such mask, or the class scores do not come from a convolution of
            3 x 3.
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

    def _with_rows(self, shapes: Mapping[str, Shape]) -> Shapes:
        weight = self.classifier_weight
        rows = {"penultimate": weight.shape[1:], "logits": weight.shape[:1]}
        return Shapes(
            self.name,
            {**shapes, **rows},
            exclusive_classes=False,
            classes=self._head.num_classes,
            background=True,
        )

    def _map_scores(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self._scores(self._head.conv(x)) for x in maps]

    @property
    def num_classes(self) -> int:
        """Number of classes, without the background."""
        return int(self._head.num_classes) - 1

    @property
    def classifier_weight(self) -> Float[Tensor, "classes dim"]:
        """Weight of the class scores, one row per score of a location."""
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
        layer = getattr(self._head, "cls_logits", None)
        if not isinstance(layer, nn.Conv2d):
            raise NetworkError(
                f"The classification head of {self.name} computes scores by a "
                f"{type(layer).__name__}, but methods read the input of one convolution: name a "
                "convolution `cls_logits`, and put the layers before it into the tower `conv`."
            )
        return layer

    def _observe_training(self, images: list[Tensor], targets: Targets) -> Observation:
        modules = {
            "anchors": self.module.anchor_generator,
            "tower": self._head.conv,
            "map scores": self._scores,
            "scores": self._head,
        }
        with _matched_anchors(self.module.head) as matched:
            recorded = self._record_training(images, targets, modules)
        locations, labels = self._locations(
            recorded.images, matched, recorded.output("anchors"), recorded.targets
        )
        kept = locations.kept
        features = {
            **self._by_map(recorded.maps.values()),
            **self._by_map(recorded.outputs("map scores"), "/scores"),
            "penultimate": extract_patches(recorded.outputs("tower"), kept),
            "logits": recorded.output("scores").reshape(*kept.shape, -1)[kept],
        }
        rows = rows_batch(labels, features["penultimate"])
        return Observation(features, rows, recorded.losses, locations)

    def _observe_sampled(self, images: ResizedImages, targets: Targets, maps: Maps) -> Observation:
        levels = list(maps.values())
        anchors = self.module.anchor_generator(images.image_list, levels)
        # torchvision matches anchors to objects inside its loss, which is not needed itself.
        with _matched_anchors(self.module.head, loss=False) as matched:
            if isinstance(self.module, FCOS):
                sizes = [x.shape[2] * x.shape[3] for x in levels]
                self.module.compute_loss(targets, {}, anchors, sizes)
            else:
                self.module.compute_loss(targets, {}, anchors)
        locations, labels = self._locations(images, matched, anchors, targets)
        features = self._read(maps, locations, self.shapes)
        return Observation(features, rows_batch(labels, features["penultimate"]), {}, locations)

    def _locations(
        self,
        images: ResizedImages,
        matched_anchors: list[Tensor],
        anchors: list[Tensor],
        targets: Targets,
    ) -> tuple[DenseLocations, Tensor]:
        """Choose the locations to read; return them and the class at each."""
        matched = torch.unflatten(torch.stack(matched_anchors), 1, (-1, self._head.num_anchors))
        if self.mask == "balanced":
            kept = balanced_mask(matched, _inside(anchors, matched.shape[1], images))
        else:
            kept = published_mask(matched)
        classes = [
            location_classes(objects, boxes, target["boxes"], target["labels"])
            for objects, boxes, target in zip(matched, anchors, targets, strict=True)
        ]
        has_boxes = [len(target["boxes"]) > 0 for target in targets]
        kept = kept & torch.tensor(has_boxes, device=kept.device).unsqueeze(1)
        return DenseLocations(images, kept), torch.stack(classes)[kept]

    def at(self, locations: Locations, reads: Collection[str] | None = None) -> Features:
        """Compute the features at another detector's locations, without boxes and anchors.

        Raises:
            NetworkError: The maps of the two detectors have different sizes.
        """
        assert isinstance(locations, DenseLocations)
        maps = self.maps(locations.images)
        return self._read(maps, locations, self.shapes if reads is None else reads)

    def _read(
        self, maps: dict[str, Tensor], locations: DenseLocations, reads: Collection[str]
    ) -> Features:
        """Compute the features of some names at locations, from the maps."""
        levels = list(maps.values())
        own, asked = sum(x.shape[2] * x.shape[3] for x in levels), locations.kept.shape[1]
        if own != asked:
            raise NetworkError(
                f"{self.name} has {own} locations in an image where the student has {asked}: take "
                "a teacher whose maps have the strides of the student's."
            )
        features = self._by_map(levels)
        if any(name.endswith("/scores") for name in reads):
            features |= self._by_map(self._map_scores(levels), "/scores")
        if "penultimate" in reads or "logits" in reads:
            towers = [self._head.conv(x) for x in levels]
            features["penultimate"] = extract_patches(towers, locations.kept)
        if "logits" in reads:
            features["logits"] = F.linear(
                features["penultimate"], self.classifier_weight, self.classifier_bias
            )
        return features


def _inside(
    anchors: list[Tensor], locations: int, images: ResizedImages
) -> Bool[Tensor, "batch locations"]:
    """Return True for the locations inside their image, False for those in its padding."""
    # All anchors of a location have the same centre, so that its first one tells.
    first = torch.unflatten(torch.stack(anchors), 1, (locations, -1))[:, :, 0]
    sizes = torch.tensor(images.sizes, device=first.device).flip(1).unsqueeze(1)
    inside: Tensor = ((first[..., :2] + first[..., 2:]) / 2 < sizes).all(2)
    return inside


@contextmanager
def _matched_anchors(head: Any, *, loss: bool = True) -> Iterator[list[Tensor]]:
    """Record the index of each anchor's object, image by image, while a detector computes losses.

    torchvision passes the indices to its head's `compute_loss` and does not return them, so that
    this method is replaced while the context lasts.

    Args:
        head: Head of the detector.
        loss: Compute the head's losses as well; if False, it returns none.
    """
    matched: list[Tensor] = []
    own = head.compute_loss

    def recording(
        targets: Any, outputs: Any, anchors: Any, objects: list[Tensor]
    ) -> dict[str, Tensor]:
        matched.extend(objects)
        return own(targets, outputs, anchors, objects) if loss else {}

    head.compute_loss = recording
    try:
        yield matched
    finally:
        # The attribute of the instance goes; the method of the class is visible again.
        del head.compute_loss
