"""Summary and patches of a network: which of its features they are, and heads that predict them.

The teacher's *summary* is its class token `cls` if it has one, else `penultimate`; the student's is
`penultimate`, which its classifier, k-NN and linear probe read, or `cls` if it has nothing else.
*Patches* are the map `patches` of a transformer, behind its last norm, or of a network that names
one, else the last stage that is a map or a grid of tokens. The student's map is resized to the
teacher's, bilinearly, without aligned corners and without antialiasing, as the code of all these
methods does.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ShapeError
from understudy.features import Shapes
from understudy.functional import cosine
from understudy.methods._projectors import map_shape

INITIAL_STD = 0.02
"""Standard deviation of the initial weights of a head, as published."""


def summary(shapes: Shapes, name: str = "", *, student: bool = False) -> str:
    """Return the name of a network's summary vector, by default by the rule above.

    Raises:
        ShapeError: The network has no such feature, or it is no vector.
    """
    read = student and "penultimate" in shapes
    name = name or ("cls" if "cls" in shapes and not read else "penultimate")
    shapes.vector(name)
    return name


def patches(shapes: Shapes, name: str = "") -> str:
    """Return the name of a network's patches, by default by the rule above.

    Raises:
        ShapeError: The network has no such feature, or it is no map and no grid of tokens.
    """
    if not name and "patches" in shapes:
        name = "patches"
    if not name:
        dense = [stage for stage in shapes.stages if shapes.kind(stage) != "vector"]
        if not dense:
            raise ShapeError(
                f"No stage of {shapes.owner} is a map or a grid of tokens; it has: "
                f"{', '.join(shapes)}. Name the feature to compare in the method's 'patches'."
            )
        name = dense[-1]
    map_shape(shapes, name)
    return name


def pair_of(name: str) -> tuple[str, str]:
    """Return the student's and the teacher's name of a feature written 'a' or 'a:b'."""
    student, _, teacher = name.partition(":")
    return student, teacher or student


def summaries(student: Shapes, teacher: Shapes, name: str) -> tuple[str, str]:
    """Return the names of both summaries; `name` is 'a', 'a:b' or empty for the rule above."""
    s, t = pair_of(name)
    return summary(student, s, student=True), summary(teacher, t)


def patch_maps(student: Shapes, teacher: Shapes, name: str) -> tuple[str, str]:
    """Return the names of both patches; `name` is 'a', 'a:b' or empty for the rule above."""
    s, t = pair_of(name)
    return patches(student, s), patches(teacher, t)


def check_same_images(
    method: str, summary: Float[Tensor, "rows dim"], patches: Float[Tensor, "images ..."], fix: str
) -> None:
    """Refuse to add losses of locations, as a detector's summaries are, to those of whole maps.

    Raises:
        ShapeError: There is not one summary for each map.
    """
    if len(summary) != len(patches):
        raise ShapeError(
            f"{method} compares one summary and one map of each image, but there are "
            f"{len(summary)} summaries, of locations in a detector, and {len(patches)} maps: {fix}."
        )


def tokens(x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch positions channels"]:
    """Return the positions of a map as tokens, row by row."""
    return x.flatten(2).transpose(1, 2)


def head(
    inputs: int, outputs: int, *, layers: int = 1, hidden: int = 2048, zero_bias: bool = False
) -> nn.Sequential:
    """Build a head on vectors or tokens: linear layers, LayerNorm and GELU behind all but the last.

    Weights are drawn from N(0, 0.02²).

    Args:
        inputs: Width of the student's feature.
        outputs: Width of the teacher's.
        layers: Linear layers; 1 for a linear head.
        hidden: Width between them.
        zero_bias: Whether biases start at 0; else as torch draws them.
    """
    parts: list[nn.Module] = []
    for number in range(layers):
        last = number == layers - 1
        linear = nn.Linear(inputs, outputs if last else hidden)
        nn.init.trunc_normal_(linear.weight, std=INITIAL_STD)
        if zero_bias:
            nn.init.zeros_(linear.bias)
        parts += [linear] if last else [linear, nn.LayerNorm(hidden), nn.GELU()]
        inputs = hidden
    return nn.Sequential(*parts)


def per_position(
    module: nn.Module, x: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch outputs h w"]:
    """Apply a head on vectors to every position of a map."""
    y: Tensor = module(x.permute(0, 2, 3, 1))
    return y.permute(0, 3, 1, 2)


def one_minus_cosine(
    student: Float[Tensor, "*rows dim"], teacher: Float[Tensor, "*rows dim"]
) -> Float[Tensor, "*rows"]:
    """Compute 1 − cos of the angle between rows; 1 with gradient zero where either row is zero."""
    return 1 - cosine(student, teacher)


def smooth_l1(
    student: Float[Tensor, "*rows dim"], teacher: Float[Tensor, "*rows dim"], beta: float = 1.0
) -> Float[Tensor, "*rows"]:
    """Average over each row d² / 2β where |d| < β, else |d| − β/2, for d = student − teacher."""
    return F.smooth_l1_loss(student, teacher, beta=beta, reduction="none").mean(-1)


def cosine_and_l1(
    student: Float[Tensor, "*rows dim"],
    teacher: Float[Tensor, "*rows dim"],
    cosine_weight: float,
    l1_weight: float,
    beta: float = 1.0,
) -> Float[Tensor, "*rows"]:
    """Add up 1 − cos and the smooth L1 distance of each row by their weights."""
    angles, distances = one_minus_cosine(student, teacher), smooth_l1(student, teacher, beta)
    return cosine_weight * angles + l1_weight * distances


def aligners(student: Shapes, teacher: Shapes, pairs: Sequence[tuple[str, str]]) -> nn.ModuleList:
    """Build for each pair of maps a 1×1 convolution to the teacher's width, if it differs."""
    widths = [(map_shape(student, s)[0], map_shape(teacher, t)[0]) for s, t in pairs]
    return nn.ModuleList(nn.Identity() if s == t else nn.Conv2d(s, t, 1) for s, t in widths)
