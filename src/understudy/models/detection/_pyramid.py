"""Detectors over a feature pyramid: their maps, and what is scored at each position, by name."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import log2

from torch import Tensor

from understudy.features import Features, Shapes
from understudy.models.detection._detector import Detector
from understudy.models.taps import eval_mode

NOMINAL_SIZE = 256
"""Side of the image whose maps have the shapes that a detector states."""

Shape = tuple[int, ...]


class OverPyramid(Detector):
    """Gives maps by their strides, `p3` with an eighth of the resolution, and rows of locations.

    `p3/scores` are the logits at each position of `p3`, anchor by anchor: of the classes, or of
    there being an object. Of maps of one stride, the last has the name.
    """

    @property
    def shapes(self) -> Shapes:
        """Of the maps, their scores and the rows.

        Maps are those of an image of `NOMINAL_SIZE` pixels, whatever the detector resizes to: a
        teacher is given images that the student has resized.
        """
        return self._shapes

    @cached_property
    def _shapes(self) -> Shapes:
        names, maps, scores = self._levels
        known = dict(zip(names, maps, strict=True))
        known |= {f"{name}/scores": x for name, x in zip(names, scores, strict=True)}
        return self._with_rows(known)

    @cached_property
    def _levels(self) -> tuple[list[str], list[Shape], list[Shape]]:
        """Name of each map, and the shapes of the map and of its scores."""
        image = next(self.module.parameters()).new_zeros(1, 3, NOMINAL_SIZE, NOMINAL_SIZE)
        with eval_mode(self.module):
            maps = list(self._maps(image).values())
            scores = self._scored(maps)
        names = [f"p{round(log2(NOMINAL_SIZE / x.shape[-1]))}" for x in maps]
        return names, [tuple(x.shape[1:]) for x in maps], [tuple(x.shape[1:]) for x in scores]

    @abstractmethod
    def _with_rows(self, maps: Mapping[str, Shape]) -> Shapes:
        """Shapes of maps and scores, and of the rows besides."""

    @abstractmethod
    def _scored(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Logits at each position of each map."""

    def _named(self, maps: Iterable[Tensor], ending: str = "") -> Features:
        """Something of each level by the name of its map and an ending."""
        return {f"{name}{ending}": x for name, x in zip(self._levels[0], maps, strict=True)}
