"""Heo et al.: "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866.

    L = Σₗ 2^{l−m} · 1/B Σᵢ Σ_{c,n} d( r(sᵢˡ)_{cn}, tᵢˡ_{cn}, g_c )
    d(s, t, g) = (s − t)² if t > 0, else max(0, s − max(t, g))²

sˡ, tˡ are stage l = 1 … m of student and teacher before the last activation (the larger map is
averaged down to the smaller), r the connector, a 1×1 convolution and batch normalisation to the
teacher's channels, B the batch. The margin g_c < 0 is the mean of the negative responses of
channel c of the teacher: where the teacher is below it, the student only has to be below it too.

Where this departs from the released code (github.com/clovaai/overhaul-distillation) and mdistiller:
- The margin is measured on one augmented view of the training images, which is the paper's
  definition and needs no layer of the teacher to be found. The code takes a normal distribution
  with the bias and weight of the batch normalisation before the activation; behind a shortcut that
  is not the distribution of what is compared. `margin="normal"` is this formula with the measured
  mean and deviation of each channel, the same number where the normalisation comes last.
- The teacher is in evaluation mode. The code keeps it in training mode, so that its running
  statistics drift and its features depend on the batch.
- Wide residual networks are read without a second pass through their norms, which in the code
  counts in the student's running statistics twice. MobileNetV2, missing in mdistiller, ends its
  stages without an activation; they are compared as they are.
- If the student's map is the larger one it is averaged, before its connector; the code spreads the
  teacher's map.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import EPS, batch_mean
from understudy.methods._maps import OnMaps, maps, meet, pairs
from understudy.methods._projectors import BatchNorm, as_map, map_shape


def ofd(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    margin: Float[Tensor, "channels 1 1"],
) -> Float[Tensor, " batch"]:
    """Partial squared distance of each row, summed over all elements."""
    gap = student - torch.maximum(teacher, margin)
    # Not `torch.where`, which takes four times as long on a CPU.
    counts = ((teacher > 0) | (gap > 0)).to(gap.dtype)
    return (counts * gap).square().flatten(1).sum(1)


def normal_margin(
    mean: Float[Tensor, " channels"], std: Float[Tensor, " channels"]
) -> Float[Tensor, " channels"]:
    """Mean of the negative part of a normal distribution; −3σ where that part is below 0.001.

    With the bias of a batch normalisation for the mean and its weight for the deviation (whose
    sign does not matter) this is the margin of the released code.
    """
    mu, sigma = mean.double(), std.double().abs()
    z = mu / sigma.clamp_min(EPS)
    below = torch.special.ndtr(-z)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5
    part = mu - sigma * density / below.clamp_min(EPS)
    return torch.where(below > 0.001, part, -3 * sigma).to(mean.dtype)


@final
class OFD(OnMaps):
    """Overhaul of feature distillation: the student follows what passes the teacher's ReLU.

    Published weight: 0.001, beside 1 on the labels; 0.0001 from ResNet50 to MobileNet (ImageNet).

    Args:
        student: Shapes of the student; needs maps before an activation.
        teacher: Shapes of the teacher; needs maps before an activation.
        stages: Maps to compare; default all 'stage1/preact' and so on, matched from the deepest
            backwards. Where the networks' names differ: 'stage2/preact:stage3/preact', the
            student's first.
        margin: The mean of the teacher's negative responses, or that of a normal distribution.
    """

    published_weight: ClassVar[float] = 0.001

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        margin: Literal["measured", "normal"] = "measured",
    ) -> None:
        super().__init__()
        self.pairs = pairs(student, teacher, stages, ours="/preact", theirs="/preact")
        self.margin = margin
        widths = [(map_shape(student, s)[0], map_shape(teacher, t)[0]) for s, t in self.pairs]
        self.connectors = nn.ModuleList(_connector(ours, theirs) for ours, theirs in widths)
        for number, (_, theirs) in enumerate(widths):
            self.register_buffer(f"margin{number}", torch.zeros(theirs, 1, 1))
        self.prepared = False

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the margin of every channel over one augmented view of the training images."""
        margins = self._margins()
        moments = [torch.zeros(5, len(margin), dtype=torch.float64) for margin in margins]
        for features, _ in teacher.batches(augmented=True):
            for total, margin, name in zip(moments, margins, self.reads, strict=True):
                total += _moments(as_map(features[name]).to(margin)).double().cpu()
        for margin, total in zip(margins, moments, strict=True):
            margin.copy_(_margin(total, self.margin).view(-1, 1, 1))
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        levels = []
        compared = maps(student, teacher, self.pairs)
        each = zip(self.connectors, self._margins(), compared, strict=True)
        for number, (connect, margin, level) in enumerate(each, 1):
            s, t = meet(*level)
            levels.append(2.0 ** (number - len(compared)) * ofd(connect(s), t, margin))
        return batch_mean(torch.stack(levels).sum(0))

    def _margins(self) -> list[Float[Tensor, "channels 1 1"]]:
        return [self.get_buffer(f"margin{number}") for number in range(len(self.pairs))]


def _connector(student: int, teacher: int) -> nn.Sequential:
    convolution = nn.Conv2d(student, teacher, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, BatchNorm(teacher))


def _moments(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "5 channels"]:
    """Of each channel: count, sum and sum of squares; count and sum of the negative numbers."""
    channels = x.transpose(0, 1).flatten(1)
    negative = channels.clamp_max(0)
    count = channels.new_full((len(channels),), channels.shape[1])
    rows = count, channels.sum(1), channels.square().sum(1), (channels < 0).sum(1), negative.sum(1)
    return torch.stack(rows)


def _margin(moments: Float[Tensor, "5 channels"], kind: str) -> Float[Tensor, " channels"]:
    count, total, squares, negatives, below = moments
    if kind == "measured":
        measured: Tensor = below / negatives.clamp_min(1)
        return measured
    mean = total / count
    return normal_margin(mean, (squares / count - mean**2).clamp_min(0).sqrt())
