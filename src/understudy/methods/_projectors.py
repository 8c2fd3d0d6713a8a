"""Layers between the feature of the student and the teacher's, dropped after training."""

from math import isqrt
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors and maps that bears a batch without any spread.

    One value per channel, or none, has no variance: such a batch, the last of an epoch perhaps, is
    normalised by the running statistics and leaves them as they are.
    """

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Tensor:
        """The normalised input, of the same shape."""
        values = input.flatten(2) if input.dim() > 3 else input
        if values.numel() >= 2 * self.num_features:
            return super().forward(values).reshape(input.shape)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def regressor(student: Shapes, teacher: Shapes, feature: str) -> nn.Module:
    """Learned map from the student's `feature` to the shape of the teacher's.

    Vector to vector and tokens to tokens: one linear layer. To or from a map: `map_regressor`,
    where tokens are laid out as the square grid they come from.

    Raises:
        ShapeError: No projector leads from the one shape to the other.
    """
    kinds = student.kind(feature), teacher.kind(feature)
    if "vector" in kinds and kinds != ("vector", "vector"):
        raise ShapeError(
            f"{feature!r} is {kinds[0]} in {student.owner} and {kinds[1]} in {teacher.owner}; a "
            "vector can only be compared with a vector."
        )
    if "map" in kinds:
        return map_regressor(map_shape(student, feature), map_shape(teacher, feature))
    if student[feature][:-1] != teacher[feature][:-1]:
        raise ShapeError(
            f"{feature!r} has {student[feature][0]} tokens in {student.owner} and "
            f"{teacher[feature][0]} in {teacher.owner}; token by token needs equally many."
        )
    return nn.Linear(student.width(feature), teacher.width(feature))


def map_regressor(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Sequential:
    """Convolution + batch normalisation + ReLU from one `(channels, height, width)` to another.

    The rule of the CRD code base (github.com/HobbitLong/RepDistiller): a map twice as high is
    halved by a 3x3 convolution of stride 2, one half as high is doubled by a transposed 4x4
    convolution, any other higher or equal one is met by a convolution without padding.

    Raises:
        ShapeError: The student's map is smaller than the teacher's, but not half of it.
    """
    (inputs, *ours), (outputs, *theirs) = student, teacher
    layer: nn.Module
    if ours == [2 * side for side in theirs]:
        layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * side for side in ours] == theirs:
        layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif all(a >= b for a, b in zip(ours, theirs, strict=True)):
        height, width = (1 + a - b for a, b in zip(ours, theirs, strict=True))
        layer = nn.Conv2d(inputs, outputs, (height, width))
    else:
        raise ShapeError(
            f"No projector leads from the student's map {tuple(ours)} up to the teacher's "
            f"{tuple(theirs)}; name an earlier stage of the student by a tap."
        )
    return nn.Sequential(layer, BatchNorm(outputs), nn.ReLU())


def map_shape(shapes: Shapes, feature: str) -> tuple[int, ...]:
    """`(channels, height, width)` of a map, or of tokens laid out as a square grid.

    Raises:
        ShapeError: The feature is a vector, or its tokens are no square grid.
    """
    if shapes.kind(feature) == "map":
        return shapes[feature]
    if shapes.kind(feature) == "vector":
        raise ShapeError(
            f"{feature!r} of {shapes.owner} is a vector of {shapes[feature][0]}; this compares "
            "maps, or tokens that are a square grid: name one of those."
        )
    tokens, width = shapes[feature]
    side = isqrt(tokens)
    if tokens not in (side**2, side**2 + 1):
        raise ShapeError(
            f"{feature!r} of {shapes.owner} has {tokens} tokens, which is no square grid, with or "
            "without one class token; compare it with tokens, or name another feature."
        )
    return width, side, side


def as_map(x: Tensor) -> Float[Tensor, "batch channels height width"]:
    """A map as it is; tokens as a square grid, without the class token in front if there is one."""
    if x.dim() == 4:
        return x
    side = isqrt(x.shape[1])
    return x[:, x.shape[1] - side**2 :].transpose(1, 2).reshape(len(x), -1, side, side)
