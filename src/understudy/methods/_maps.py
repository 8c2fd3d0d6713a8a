"""Matching of stages and resizing of maps, for the methods that compare maps."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import unit
from understudy.methods._method import Method
from understudy.methods._projectors import map_shape
from understudy.methods._tokens import patch_maps

Pairs = tuple[tuple[str, str], ...]
"""Names (student's, teacher's) of the features that are compared, first to last."""


class MapMethod(Method):
    """A method that compares maps of both networks, and nothing else.

    Attributes:
        pairs: The maps compared; set at construction, from `match_maps`.
    """

    pairs: Pairs

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the compared maps."""
        return tuple(t for _, t in self.pairs)

    def paired_maps(
        self, student: Features, teacher: Features
    ) -> list[tuple[Float[Tensor, "batch c_s h_s w_s"], Float[Tensor, "batch c_t h_t w_t"]]]:
        """Return the compared maps of both networks; tokens are reshaped to their grid."""
        return [
            (self.student_as_map(student, s), self.teacher_as_map(teacher, t))
            for s, t in self.pairs
        ]


def match_maps(
    student: Shapes,
    teacher: Shapes,
    names: Iterable[str] = (),
    *,
    student_suffix: str = "",
    teacher_suffix: str = "",
    or_activated: bool = False,
) -> Pairs:
    """Return which map of the student is compared with which map of the teacher.

    By default all stages without the stem, as published. Stages are matched from the deepest
    backwards; if one network has more stages, its first ones are left out. (In all published pairs
    both networks have the same number.)

    Args:
        student: Shapes of the student.
        teacher: Shapes of the teacher.
        names: Features to compare instead; 'stage2', or 'stage2:stage3' if the student's and the
            teacher's names differ.
        student_suffix: Suffix of the student's stage names, such as `/preact`.
        teacher_suffix: Suffix of the teacher's stage names.
        or_activated: Use a network's stages without suffix if it does not name them with it.

    Raises:
        ShapeError: A network has no such feature, or it is neither a map nor a grid of tokens.
    """
    if names:
        parts = [name.partition(":") for name in names]
        matched = [(s, t or s) for s, _, t in parts]
    else:
        s = _stages(student, student_suffix, or_activated)
        t = _stages(teacher, teacher_suffix, or_activated)
        # Stages are sorted from the first to the deepest: both lists are cut at the front.
        count = min(len(s), len(t))
        matched = list(zip(s[-count:], t[-count:], strict=True))
    for s_name, t_name in matched:
        map_shape(student, s_name)
        map_shape(teacher, t_name)
    return tuple(matched)


def last_maps(student: Shapes, teacher: Shapes, names: Iterable[str] = ()) -> Pairs:
    """Return the maps named as for `match_maps`; by default the patches of both, a single pair."""
    return match_maps(student, teacher, names or (":".join(patch_maps(student, teacher, "")),))


def to_smaller_size(
    x: Float[Tensor, "batch c_x h_x w_x"], y: Float[Tensor, "batch c_y h_y w_y"]
) -> tuple[Float[Tensor, "batch c_x h w"], Float[Tensor, "batch c_y h w"]]:
    """Average-pool the larger of two maps to the size of the smaller."""
    height, width = (min(a, b) for a, b in zip(x.shape[2:], y.shape[2:], strict=True))
    return pool_to(x, height, width), pool_to(y, height, width)


def pool_to(
    x: Float[Tensor, "batch channels h_x w_x"], height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """Average-pool a map to a size; return it unchanged if it has that size."""
    return x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))


def attention(
    x: Float[Tensor, "batch channels height width"], power: float
) -> Float[Tensor, "batch positions"]:
    """Compute the spatial attention of a map: the channel mean of |x|^p, scaled to length 1."""
    # An even power needs no `abs`, which would store one more map for the backward pass.
    powers = x.pow(power) if power % 2 == 0 else x.abs().pow(power)
    return unit(powers.mean(1).flatten(1))


def _stages(shapes: Shapes, suffix: str, or_activated: bool) -> list[str]:
    names = [stage + suffix for stage in shapes.stages]
    missing = [name for name in names if name not in shapes]
    if missing and or_activated:
        return list(shapes.stages)
    if missing:
        raise ShapeError(
            f"{shapes.owner} has no feature {missing[0]!r}, its stage before the last activation; "
            "tap it, or name the maps to compare by `stages`."
        )
    return names
