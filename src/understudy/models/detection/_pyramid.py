"""Base class of detectors over a feature pyramid: names their maps and the scores of each map."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import log2

from torch import Tensor

from understudy.features import Features, Shapes
from understudy.models.detection._detector import Detector, as_maps
from understudy.models.taps import eval_mode

NOMINAL_SIZE = 256
"""Side of the image for which a detector states the shapes of its maps."""

Shape = tuple[int, ...]


class PyramidDetector(Detector):
    """Detector whose maps are named by their strides: `p3` has an eighth of the resolution.

    `p3/scores` are the logits at each position of `p3`, anchor by anchor: of the classes, or of
    objectness. Of several maps of one stride, the last has the name.
    """

    @property
    def shapes(self) -> Shapes:
        """Shapes of the maps, of their scores and of the rows at locations.

        Those of maps are for an image of `NOMINAL_SIZE` pixels, whatever size the detector resizes
        images to: a teacher gets images that the student has resized.
        """
        return self._shapes

    @cached_property
    def _shapes(self) -> Shapes:
        names, maps, scores = self._levels
        shapes = dict(zip(names, maps, strict=True))
        shapes |= {f"{name}/scores": shape for name, shape in zip(names, scores, strict=True)}
        return self._with_rows(shapes)

    @cached_property
    def _levels(self) -> tuple[list[str], list[Shape], list[Shape]]:
        """Names of the maps, their shapes and the shapes of their scores, in three lists."""
        image = next(self.module.parameters()).new_zeros(1, 3, NOMINAL_SIZE, NOMINAL_SIZE)
        with eval_mode(self.module):
            maps = list(as_maps(self.module.backbone(image)).values())
            scores = self._map_scores(maps)
        names = [f"p{round(log2(NOMINAL_SIZE / x.shape[-1]))}" for x in maps]
        return names, [tuple(x.shape[1:]) for x in maps], [tuple(x.shape[1:]) for x in scores]

    @abstractmethod
    def _with_rows(self, shapes: Mapping[str, Shape]) -> Shapes:
        """Return the shapes of maps and scores, and those of the rows."""

    @abstractmethod
    def _map_scores(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the logits at each position of each map."""

    def _by_map(self, values: Iterable[Tensor], suffix: str = "") -> Features:
        """Name one tensor per map by the name of its map and a suffix."""
        return {f"{name}{suffix}": x for name, x in zip(self._levels[0], values, strict=True)}
