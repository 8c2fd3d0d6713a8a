"""Projectors from a student's feature to the teacher's shape, dropped after training."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes, TokenGrid


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


def compared_as_maps(student: Shapes, teacher: Shapes, names: tuple[str, str]) -> bool:
    """Return True if a pair is compared as maps: one is a map, or the numbers of tokens differ."""
    s, t = names
    kinds = student.kind(s), teacher.kind(t)
    counts = student[s][:-1] != teacher[t][:-1]
    return "vector" not in kinds and ("map" in kinds or counts)


def regressor(student: Shapes, teacher: Shapes, names: tuple[str, str]) -> nn.Module:
    """Build a projector from a feature of the student to the shape of one of the teacher.

    Vector to vector, and tokens to as many tokens: one linear layer. Others: `map_regressor`, with
    tokens reshaped to their grid.

    Raises:
        ShapeError: No projector fits these shapes.
    """
    s, t = names
    kinds = student.kind(s), teacher.kind(t)
    if "vector" in kinds and kinds != ("vector", "vector"):
        raise ShapeError(
            f"{s!r} is {kinds[0]} in {student.owner} and {t!r} is {kinds[1]} in {teacher.owner}; a "
            "vector can only be compared with a vector."
        )
    if not compared_as_maps(student, teacher, names):
        return nn.Linear(student.width(s), teacher.width(t))
    return map_regressor(student, teacher, names)


def map_regressor(student: Shapes, teacher: Shapes, names: tuple[str, str]) -> nn.Sequential:
    """Build convolution + batch norm + ReLU from a map of the student to one of the teacher.

    The rule of the CRD code base (github.com/HobbitLong/RepDistiller): a 3×3 convolution of stride
    2 halves a map twice as large, a transposed 4×4 convolution doubles a map half as large, and a
    convolution without padding, of the size that fits, reduces any other larger or equal map. A
    map of any other size, which that code refuses, is resized bilinearly before a 1×1 convolution.
    So is a larger one where either is a grid of tokens: these and maps of convolutional networks
    differ by so much that the kernel would be as large as a map.

    Raises:
        ShapeError: A feature is a vector, or its tokens form no grid.
    """
    s, t = names
    inputs, *student_size = map_shape(student, s)
    outputs, *teacher_size = map_shape(teacher, t)
    of_tokens = student.of_tokens(s) or teacher.of_tokens(t)
    layer: nn.Module
    if student_size == [2 * side for side in teacher_size]:
        layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * side for side in student_size] == teacher_size:
        layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif not of_tokens and all(a >= b for a, b in zip(student_size, teacher_size, strict=True)):
        kernel = [1 + a - b for a, b in zip(student_size, teacher_size, strict=True)]
        layer = nn.Conv2d(inputs, outputs, (kernel[0], kernel[1]))
    else:
        layer = ResizedConv(inputs, outputs, (teacher_size[0], teacher_size[1]))
    return nn.Sequential(layer, BatchNorm(outputs), nn.ReLU())


@final
class ResizedConv(nn.Conv2d):
    """1×1 convolution of a map that is resized bilinearly, corners not aligned.

    Args:
        inputs: Channels of the map.
        outputs: Channels of the result.
        size: Height and width to resize to.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, 1)
        self.size = size

    def forward(self, input: Float[Tensor, "batch inputs h w"]) -> Tensor:
        """Resize, then convolve."""
        return super().forward(resize(input, self.size))


def resize(
    x: Float[Tensor, "batch channels h w"], size: Sequence[int]
) -> Float[Tensor, "batch channels height width"]:
    """Resize a map bilinearly to a height and width; return it unchanged if it has them."""
    if x.shape[2:] == torch.Size(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)


def map_shape(shapes: Shapes, feature: str) -> tuple[int, ...]:
    """Return `(channels, height, width)` of a map, or of tokens reshaped to their grid.

    Raises:
        ShapeError: The feature is a vector, or its tokens form no grid.
    """
    if shapes.kind(feature) == "map":
        return shapes[feature]
    if shapes.kind(feature) == "vector":
        raise ShapeError(
            f"{feature!r} of {shapes.owner} is a vector of {shapes[feature][0]}; this method "
            "compares maps, or tokens that form a grid: name one of those."
        )
    tokens, width = shapes[feature]
    if feature in shapes.grids:
        return width, *shapes.grids[feature].size(tokens)
    square = TokenGrid.square(tokens)
    if shapes.token_layout or square is None:
        cause = shapes.token_layout or "they form no square grid, with or without one class token"
        raise ShapeError(
            f"{feature!r} of {shapes.owner} has {tokens} tokens, which are no map: {cause}. "
            "Compare it with tokens, or name another feature."
        )
    return width, square.height, square.width


def as_map(x: Tensor, grid: TokenGrid | None = None) -> Float[Tensor, "batch channels h w"]:
    """Reshape tokens, without those before the patches, to their grid; keep a map unchanged.

    Args:
        x: Map or tokens.
        grid: Where the patches lie; None for a square grid behind at most one class token.
    """
    if x.dim() == 4:
        return x
    grid = grid or TokenGrid.square(x.shape[1])
    assert grid is not None  # `map_shape` refuses other tokens
    return grid.as_map(x)
