"""Heo et al.: "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866.

    L = Σₗ 2^{l−m} · 1/B Σᵢ Σ_{c,n} d( r(sᵢˡ)_{cn}, tᵢˡ_{cn}, g_c )
    d(s, t, g) = (s − t)² if t > 0, else max(0, s − max(t, g))²

sˡ, tˡ are stage l = 1 … m of student and teacher before the last activation (the larger map is
average-pooled to the size of the smaller), r the connector, a 1×1 convolution and batch
normalisation to the teacher's channels, B the batch size. The margin g_c < 0 is the mean of the
negative responses of channel c of the teacher: where the teacher is below it, the student only has
to be below it too.

Differences from the released code (github.com/clovaai/overhaul-distillation) and mdistiller:
- The margin is measured on one augmented view of the training images, which is the paper's
  definition and does not depend on the teacher's layers. The code takes a normal distribution with
  the bias and weight of the batch normalisation before the activation; after a shortcut, that is
  not the distribution of the compared feature. `margin="normal"` is this formula with the measured
  mean and deviation of each channel: the same number if the normalisation is the last layer.
- The teacher is in evaluation mode. The code keeps it in training mode, so that its running
  statistics drift and its features depend on the batch.
- Wide residual networks are not passed through their norm layers a second time, which in the code
  updates the student's running statistics twice. MobileNetV2, missing in mdistiller, ends its
  stages without an activation; they are compared directly.
- If the student's map is the larger one, it is average-pooled before its connector; the code
  upsamples the teacher's map.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import EPS, batch_mean, double
from understudy.methods._maps import MapMethod, match_maps, to_smaller_size
from understudy.methods._projectors import BatchNorm, map_shape


def ofd(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    margin: Float[Tensor, "channels 1 1"],
) -> Float[Tensor, " batch"]:
    """Compute the partial squared distance of each row, summed over all elements."""
    # g < 0, so that max(t, g) is t where t > 0: both cases of d have the same difference.
    gap = student - torch.maximum(teacher, margin)
    # A mask by multiplication: `torch.where` takes four times as long on a CPU.
    mask = ((teacher > 0) | (gap > 0)).to(gap.dtype)
    return (mask * gap).square().flatten(1).sum(1)


def normal_margin(
    mean: Float[Tensor, " channels"], std: Float[Tensor, " channels"]
) -> Float[Tensor, " channels"]:
    """Compute the mean of a normal distribution's negative part; −3σ if its mass is below 0.001.

    With the bias of a batch normalisation as mean and its weight as deviation (the sign does not
    matter) this is the margin of the released code.
    """
    mu, sigma = double(mean), double(std).abs()
    z = mu / sigma.clamp_min(EPS)
    below = torch.special.ndtr(-z)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5
    part = mu - sigma * density / below.clamp_min(EPS)
    return torch.where(below > 0.001, part, -3 * sigma).to(mean.dtype)


@final
class OFD(MapMethod):
    """Overhaul of feature distillation: the student matches what passes the teacher's ReLU.

    Published weight: 0.001, with weight 1 on the task loss; 0.0001 from ResNet50 to MobileNet
    (ImageNet).

    Args:
        student: Shapes of the student; needs maps.
        teacher: Shapes of the teacher; needs maps.
        stages: Maps to compare; default: all pre-activations 'stage1/preact' and so on, matched
            from the deepest backwards. If the networks' names differ:
            'stage2/preact:stage3/preact', the student's first. A network without 'stage1/preact',
            whose stages end in no activation that is a module, is compared at its stages; where
            these end in a ReLU, the teacher has no negative responses and the margin is 0.
        margin: `measured` is the mean of the teacher's negative responses, `normal` that of a
            normal distribution with the measured moments.
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
        super().__init__(student, teacher)
        self.pairs = match_maps(
            student,
            teacher,
            stages,
            student_suffix="/preact",
            teacher_suffix="/preact",
            or_activated=True,
        )
        self.margin = margin
        widths = [(map_shape(student, s)[0], map_shape(teacher, t)[0]) for s, t in self.pairs]
        self.connectors = nn.ModuleList(_connector(*channels) for channels in widths)
        for number, (_, outputs) in enumerate(widths):
            self.register_buffer(f"margin{number}", torch.zeros(outputs, 1, 1))
        self.prepared = False

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the margin of every channel over one augmented view of the training images."""
        margins = self._margins()
        moments = [torch.zeros(5, len(margin), dtype=torch.float64) for margin in margins]
        for features, _ in teacher.batches(augmented=True):
            for total, margin, name in zip(moments, margins, self.reads, strict=True):
                total += _moments(self.teacher_as_map(features, name).to(margin)).cpu().double()
        for margin, total in zip(margins, moments, strict=True):
            margin.copy_(_margin(total, self.margin).view(-1, 1, 1))
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        levels = []
        compared = self.paired_maps(student, teacher)
        stages = zip(self.connectors, self._margins(), compared, strict=True)
        for number, (connect, margin, stage) in enumerate(stages, start=1):
            s, t = to_smaller_size(*stage)
            # 2^{l−m}: the deepest stage has weight 1, each earlier one half of the next.
            levels.append(2.0 ** (number - len(compared)) * ofd(connect(s), t, margin))
        return batch_mean(torch.stack(levels).sum(0))

    def _margins(self) -> list[Float[Tensor, "channels 1 1"]]:
        return [self.get_buffer(f"margin{number}") for number in range(len(self.pairs))]


def _connector(student: int, teacher: int) -> nn.Sequential:
    convolution = nn.Conv2d(student, teacher, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, BatchNorm(teacher))


def _moments(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "5 channels"]:
    """Compute for each channel: count, sum, sum of squares, count and sum of negative values."""
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
