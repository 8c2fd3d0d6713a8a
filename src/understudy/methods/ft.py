"""Kim, Park, Kwak: "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018.

NeurIPS 2018, arXiv 1802.04977.

    L = 1/(B·N) Σᵢ | q(T(sᵢ)) − q(P(tᵢ)) |^{p₂},     q(x) = v / ‖v‖,   v = 1/C Σ_c |x_c|^{p₁}

s, t are the last maps of student and teacher, P the paraphraser and T the translator, each three
3×3 convolutions with leaky ReLUs, whose outputs (the factors) have `rate` times the teacher's
channels; T also has batch normalisation. N = H·W is the number of positions (the larger map of
factors is average-pooled to the size of the smaller), B the batch size. P is the encoder of an
auto-encoder of the teacher's maps, which is trained in `prepare` and then frozen; T is trained with
the student. The reduction of factors to q is that of the code base of CRD
(github.com/HobbitLong/RepDistiller); the paper normalises the factors themselves.

Differences from that code: the auto-encoder sees the same augmented view of an image in each of its
epochs, in the order of the data; maps of factors that are zero everywhere have gradient zero; the
frozen paraphraser is stored in buffers, which no optimizer updates.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.config.limits import Epochs, Positive, Range
from understudy.errors import Diverged, ShapeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean, seeded
from understudy.methods._maps import MapMethod, attention, match_maps, to_smaller_size
from understudy.methods._projectors import BatchNorm, map_shape


def ft(
    student: Float[Tensor, "batch factors h_s w_s"],
    teacher: Float[Tensor, "batch factors h_t w_t"],
    p1: Annotated[float, Range(least=1)] = 2.0,
    p2: Annotated[float, Range(least=1)] = 1.0,
) -> Float[Tensor, " batch"]:
    """Average |q(student) − q(teacher)| to the power p₂ over the positions of each row."""
    s, t = to_smaller_size(student, teacher)
    # q is the attention of the factors.
    gap = (attention(s, p1) - attention(t, p1)).abs()
    return (gap if p2 == 1 else gap.pow(p2)).mean(1)


@final
class FT(MapMethod):
    """Factor transfer: the student's translated map matches a paraphrase of the teacher's.

    Published weight: 200, with weight 1 on the task loss.

    Args:
        student: Shapes of the student; needs a map.
        teacher: Shapes of the teacher; needs a map.
        stages: The one map to compare; default: the last stage. If the networks' names differ:
            'stage2:stage3', the student's first.
        rate: Ratio of the factors' channels to those of the teacher's map.
        p1: p₁, power of the factors before their mean, at least 1.
        p2: p₂, power of the distance, at least 1.
        paraphraser_epochs: Epochs for which the auto-encoder is trained on the teacher's maps.
        paraphraser_lr: Learning rate of the auto-encoder, with momentum 0.9; published as 0.01, and
            as 0.05 for students that are neither residual nor wide residual networks.
    """

    published_weight: ClassVar[float] = 200.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        rate: Annotated[float, Range(above=0, most=100)] = 0.5,
        p1: Annotated[float, Range(least=1)] = 2.0,
        p2: Annotated[float, Range(least=1)] = 1.0,
        paraphraser_epochs: Epochs = 30,
        paraphraser_lr: Positive = 0.01,
    ) -> None:
        super().__init__(student, teacher)
        _check(stages, rate=rate, p1=p1, p2=p2, epochs=paraphraser_epochs)
        self.pairs = match_maps(student, teacher, stages)[-1:]
        ((student_map, teacher_map),) = self.pairs
        self.width = map_shape(teacher, teacher_map)[0]
        self.factors = max(1, int(rate * self.width))
        self.p1, self.p2 = p1, p2
        self.epochs, self.lr = paraphraser_epochs, paraphraser_lr
        # Drawn with the run's seed, like the initial weights.
        self.seed = int(torch.randint(2**31, ()))
        self.translator = _encoder(map_shape(student, student_map)[0], self.factors, norm=True)
        self.paraphraser = _fixed(_encoder(self.width, self.factors, norm=False))
        self.prepared = False

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Train the paraphraser as the encoder of an auto-encoder of the teacher's maps.

        Raises:
            Diverged: The auto-encoder's error became NaN or infinite.
        """
        # A seed of its own: preparing again, or in another process, gives the same paraphraser.
        # The caller may have turned gradients off: `enable_grad`.
        with seeded(self.seed), torch.enable_grad():
            coder = self._train(teacher)
        self.paraphraser.load_state_dict(coder[0].state_dict())
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        ((s, t),) = self.paired_maps(student, teacher)
        return batch_mean(ft(self.translator(s), self.paraphraser(t), self.p1, self.p2))

    def _train(self, teacher: TeacherOutputs) -> nn.Sequential:
        like = next(self.paraphraser.buffers())
        coder = autoencoder(self.width, self.factors).to(like)
        optimizer = torch.optim.SGD(coder.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        for _ in range(self.epochs):
            for features, _ in teacher.batches(augmented=True):
                t = self.teacher_as_map(features, self.pairs[0][1]).detach().to(like)
                error = F.mse_loss(coder(t), t)
                optimizer.zero_grad()
                error.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if not all(x.isfinite().all() for x in coder.parameters()):
            raise Diverged(
                "The paraphraser of ft diverged while it was trained on the teacher's maps; set "
                f"paraphraser_lr below {self.lr}."
            )
        return coder


def autoencoder(width: int, factors: int) -> nn.Sequential:
    """Build paraphraser and decoder for maps of `width` channels."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((factors, factors, width, width)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(_encoder(width, factors, norm=False), nn.Sequential(*layers))


def _encoder(width: int, factors: int, *, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((width, width, factors, factors)):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        layers += [BatchNorm(outputs)] if norm else []
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


def _fixed(module: nn.Sequential) -> nn.Sequential:
    """Turn the parameters of a module, in place, into buffers: stored, but not trained."""
    for layer in module:
        for name, x in list(layer.named_parameters()):
            delattr(layer, name)
            layer.register_buffer(name, x.detach())
    return module


def _check(stages: tuple[str, ...], *, rate: float, p1: float, p2: float, epochs: int) -> None:
    if len(stages) > 1:
        raise ShapeError(
            f"ft compares one map of each network, but `stages` names {', '.join(stages)}; name "
            "one, usually the last stage."
        )
