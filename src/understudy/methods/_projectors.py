"""Projectors from a student's feature to the teacher's shape, dropped after training."""

from math import isqrt
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors and maps that accepts a batch of one value per channel.

    One value, or none, has no variance. Such a batch (perhaps the last of an epoch) is normalised
    by the running statistics and does not update them.
    """

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Tensor:
        """Normalise the input, keeping its shape."""
        # From two values per channel on there is a variance.
        if input.numel() >= 2 * self.num_features:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions: flattening a map would copy it out of its layout."""


def fold_batch_norm(
    weight: Float[Tensor, "outputs inputs 1 1"],
    norm: BatchNorm,
    x: Float[Tensor, "batch inputs height width"],
) -> tuple[Float[Tensor, "outputs inputs 1 1"], Float[Tensor, " outputs"]]:
    """Return weight and bias of one 1×1 convolution that equals a 1×1 convolution and its norm.

    Mean and variance of the convolution's outputs W x follow from mean μ and covariance Σ of its
    inputs: W μ and the diagonal of W Σ Wᵀ. If there are fewer inputs than outputs, this takes less
    time than to normalise the outputs. The running statistics of the norm are updated.

    Args:
        weight: Weight of the convolution, which has no bias.
        norm: Batch normalisation of its outputs, in training mode.
        x: Inputs, at least two values per channel.
    """
    w = weight.flatten(1)
    values = x.permute(0, 2, 3, 1).flatten(0, 2)
    input_mean = values.mean(0)
    centred = values - input_mean
    mean = w @ input_mean
    variance = ((w @ (centred.T @ centred)) * w).sum(1) / len(values)
    _update_statistics(norm, mean.detach(), variance.detach() * len(values) / (len(values) - 1))
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return (w * scale[:, None])[..., None, None], norm.bias - mean * scale


def _update_statistics(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    for running, value in ((norm.running_mean, mean), (norm.running_var, variance)):
        assert running is not None
        assert norm.momentum is not None
        running.lerp_(value, norm.momentum)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)


def regressor(student: Shapes, teacher: Shapes, feature: str) -> nn.Module:
    """Build a projector from the student's `feature` to the shape of the teacher's.

    Vector to vector and tokens to tokens: one linear layer. To or from a map: `map_regressor`,
    with tokens reshaped to their square grid.

    Raises:
        ShapeError: No projector fits these shapes.
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
    """Build convolution + batch norm + ReLU from one `(channels, height, width)` to another.

    The rule of the CRD code base (github.com/HobbitLong/RepDistiller): a 3×3 convolution of stride
    2 halves a map twice as large, a transposed 4×4 convolution doubles a map half as large, and a
    convolution without padding, of the size that fits, reduces any other larger or equal map.

    Raises:
        ShapeError: The student's map is smaller than the teacher's, but not half its size.
    """
    (inputs, *student_size), (outputs, *teacher_size) = student, teacher
    layer: nn.Module
    if student_size == [2 * side for side in teacher_size]:
        layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * side for side in student_size] == teacher_size:
        layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif all(a >= b for a, b in zip(student_size, teacher_size, strict=True)):
        kernel = [1 + a - b for a, b in zip(student_size, teacher_size, strict=True)]
        layer = nn.Conv2d(inputs, outputs, (kernel[0], kernel[1]))
    else:
        raise ShapeError(
            f"No projector leads from the student's map {tuple(student_size)} up to the teacher's "
            f"{tuple(teacher_size)}; name an earlier stage of the student by a tap."
        )
    return nn.Sequential(layer, BatchNorm(outputs), nn.ReLU())


def map_shape(shapes: Shapes, feature: str) -> tuple[int, ...]:
    """Return `(channels, height, width)` of a map, or of tokens reshaped to their square grid.

    Raises:
        ShapeError: The feature is a vector, or its tokens do not form a square grid.
    """
    if shapes.kind(feature) == "map":
        return shapes[feature]
    if shapes.kind(feature) == "vector":
        raise ShapeError(
            f"{feature!r} of {shapes.owner} is a vector of {shapes[feature][0]}; this method "
            "compares maps, or tokens of a square grid: name one of those."
        )
    tokens, width = shapes[feature]
    side = isqrt(tokens)
    if tokens not in (side**2, side**2 + 1):
        raise ShapeError(
            f"{feature!r} of {shapes.owner} has {tokens} tokens, which form no square grid, with "
            "or without one class token; compare it with tokens, or name another feature."
        )
    return width, side, side


def as_map(x: Tensor) -> Float[Tensor, "batch channels height width"]:
    """Reshape tokens, without a leading class token, to their square grid; keep a map unchanged."""
    if x.dim() == 4:
        return x
    side = isqrt(x.shape[1])
    # A class token makes one more token than a square, and comes first.
    return x[:, x.shape[1] - side**2 :].transpose(1, 2).reshape(len(x), -1, side, side)
