"""What the methods on maps share: which stages are compared, and how maps come to one size."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Features, Shapes
from understudy.functional import unit
from understudy.methods._method import Method
from understudy.methods._projectors import as_map, map_shape

Pairs = tuple[tuple[str, str], ...]
"""Names of the features that are compared, the student's and the teacher's, first to last."""


class OnMaps(Method):
    """A method that compares some maps of both networks, and nothing else.

    Attributes:
        pairs: What is compared; set at construction, from `pairs`.
    """

    pairs: Pairs

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared maps alone."""
        return tuple(t for _, t in self.pairs)


def pairs(
    student: Shapes,
    teacher: Shapes,
    named: Iterable[str] = (),
    *,
    ours: str = "",
    theirs: str = "",
) -> Pairs:
    """Which maps of the student are compared with which of the teacher.

    By default all stages without the stem, as published. They are matched from the deepest
    backwards: of a network with more stages than the other, the first are left out. (In all
    published pairs both have equally many.)

    Args:
        student: Shapes of the student.
        teacher: Shapes of the teacher.
        named: The features to compare instead; 'stage2', or 'stage2:stage3' where the student's
            and the teacher's names differ.
        ours: Ending of the names of the student's stages, such as `/preact`.
        theirs: Ending of the names of the teacher's stages.

    Raises:
        ShapeError: A network has no such feature, or it is neither a map nor a grid of tokens.
    """
    if named:
        split = [name.partition(":") for name in named]
        found = [(s, t or s) for s, _, t in split]
    else:
        s, t = _stages(student, ours), _stages(teacher, theirs)
        count = min(len(s), len(t))
        found = list(zip(s[-count:], t[-count:], strict=True))
    for s_name, t_name in found:
        map_shape(student, s_name)
        map_shape(teacher, t_name)
    return tuple(found)


def maps(
    student: Features, teacher: Features, compared: Pairs
) -> list[tuple[Float[Tensor, "batch c_s h_s w_s"], Float[Tensor, "batch c_t h_t w_t"]]]:
    """The compared features of both networks; tokens are laid out as the grid they come from."""
    return [(as_map(student[s]), as_map(teacher[t])) for s, t in compared]


def meet(
    x: Float[Tensor, "batch c_x h_x w_x"], y: Float[Tensor, "batch c_y h_y w_y"]
) -> tuple[Float[Tensor, "batch c_x h w"], Float[Tensor, "batch c_y h w"]]:
    """Two maps of one size: the larger one is averaged down to the smaller."""
    height, width = (min(a, b) for a, b in zip(x.shape[2:], y.shape[2:], strict=True))
    return shrink(x, height, width), shrink(y, height, width)


def shrink(
    x: Float[Tensor, "batch channels h_x w_x"], height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """A map averaged down to a size; as it is if it has that size."""
    return x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))


def attention(
    x: Float[Tensor, "batch channels height width"], power: float
) -> Float[Tensor, "batch positions"]:
    """Where a map is active: the mean of |x|^p over the channels, scaled to length one."""
    # An even power needs no absolute value, which would keep one more map for the backward pass.
    powers = x.pow(power) if power % 2 == 0 else x.abs().pow(power)
    return unit(powers.mean(1).flatten(1))


def _stages(shapes: Shapes, ending: str) -> list[str]:
    names = [stage + ending for stage in shapes.stages]
    missing = [name for name in names if name not in shapes]
    if missing:
        raise ShapeError(
            f"{shapes.owner} has no feature {missing[0]!r}, its stage before the last activation; "
            "tap it, or name the maps to compare by `stages`."
        )
    return names
