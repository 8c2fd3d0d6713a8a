"""Kim, Park, Kwak: "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018.

NeurIPS 2018, arXiv 1802.04977.

    L = 1/(B·N) Σᵢ | q(T(sᵢ)) − q(P(tᵢ)) |^{p₂},     q(x) = v / ‖v‖,   v = 1/C Σ_c |x_c|^{p₁}

s, t are the last maps of student and teacher, P the paraphraser and T the translator, each three
3×3 convolutions with leaky ReLUs that end in `rate` times the teacher's channels; T has batch
normalisation as well. N = H·W are the positions (the larger map of factors is averaged down to the
smaller), B is the batch. P is the encoder of an auto-encoder of the teacher's maps, which is
trained here in `prepare` and then fixed; T is trained with the student. The reduction of factors
to q is that of the code base of CRD (github.com/HobbitLong/RepDistiller); the paper normalises the
factors themselves.

Where this departs from that code: the auto-encoder sees the same augmented view of an image in
each of its epochs, in the order of the data; maps of factors that are zero everywhere have no
gradient; the fixed paraphraser is stored in buffers, out of the optimizer's reach.
"""

from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import Batch
from understudy.errors import Diverged, RecipeError, ShapeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean, seeded
from understudy.methods._maps import attention, maps, meet, pairs
from understudy.methods._method import Method
from understudy.methods._projectors import BatchNorm, as_map, map_shape


def ft(
    student: Float[Tensor, "batch factors h_s w_s"],
    teacher: Float[Tensor, "batch factors h_t w_t"],
    p1: float = 2.0,
    p2: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Mean distance, to the power p₂, of the normalised factors of each row."""
    s, t = meet(student, teacher)
    gap = (attention(s, p1) - attention(t, p1)).abs()
    return (gap if p2 == 1 else gap.pow(p2)).mean(1)


@final
class FT(Method):
    """Factor transfer: the student's translated map equals a paraphrase of the teacher's.

    Published weight: 200, beside 1 on the labels.

    Args:
        student: Shapes of the student; needs a map.
        teacher: Shapes of the teacher; needs a map.
        stages: The one map to compare; default the last stage. Where the networks' names differ:
            'stage2:stage3', the student's first.
        rate: Channels of the factors over those of the teacher's map.
        p1: Power of the factors before their mean, at least 1.
        p2: Power of the distance, at least 1.
        paraphraser_epochs: Passes over the teacher's maps that the auto-encoder is trained for.
        paraphraser_lr: Its learning rate, with a momentum of 0.9; published as 0.01, and as 0.05
            for students that are neither residual nor wide residual networks.
    """

    published_weight: ClassVar[float] = 200.0

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        stages: tuple[str, ...] = (),
        rate: float = 0.5,
        p1: float = 2.0,
        p2: float = 1.0,
        paraphraser_epochs: int = 30,
        paraphraser_lr: float = 0.01,
    ) -> None:
        super().__init__()
        _check(stages, rate=rate, p1=p1, p2=p2, epochs=paraphraser_epochs)
        self.pairs = pairs(student, teacher, stages)[-1:]
        ((ours, theirs),) = self.pairs
        self.width = map_shape(teacher, theirs)[0]
        self.factors = max(1, int(rate * self.width))
        self.p1, self.p2 = p1, p2
        self.epochs, self.lr = paraphraser_epochs, paraphraser_lr
        self.seed = int(torch.randint(2**31, ()))
        self.translator = _encoder(map_shape(student, ours)[0], self.factors, norm=True)
        self.paraphraser = _fixed(_encoder(self.width, self.factors, norm=False))
        self.prepared = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The compared map alone."""
        return tuple(t for _, t in self.pairs)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Train the paraphraser as the encoder of an auto-encoder of the teacher's maps.

        Raises:
            Diverged: The auto-encoder's error became NaN or infinite.
        """
        # A seed of its own: preparing again, or in another process, gives the same paraphraser.
        with seeded(self.seed), torch.enable_grad():
            coder = self._train(teacher)
        self.paraphraser.load_state_dict(coder[0].state_dict())
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        ((s, t),) = maps(student, teacher, self.pairs)
        return batch_mean(ft(self.translator(s), self.paraphraser(t), self.p1, self.p2))

    def _train(self, teacher: TeacherOutputs) -> nn.Sequential:
        like = next(self.paraphraser.buffers())
        coder = autoencoder(self.width, self.factors).to(like)
        optimizer = torch.optim.SGD(coder.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        for _ in range(self.epochs):
            for features, _ in teacher.batches(augmented=True):
                t = as_map(features[self.pairs[0][1]]).detach().to(like)
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
    """Paraphraser and decoder for maps of `width` channels."""
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
    """The same module with its parameters turned into buffers, which are stored but not trained."""
    for layer in module:
        for name, x in list(layer.named_parameters()):
            delattr(layer, name)
            layer.register_buffer(name, x.detach())
    return module


def _check(stages: tuple[str, ...], *, rate: float, p1: float, p2: float, epochs: int) -> None:
    if len(stages) > 1:
        raise ShapeError(
            f"ft compares one map of each network, but `stages` names {', '.join(stages)}; name "
            "one, usually the last."
        )
    if not rate > 0:
        raise RecipeError(f"'rate' of ft is {rate}; it must be above 0.")
    for name, value in (("p1", p1), ("p2", p2), ("paraphraser_epochs", epochs)):
        if not value >= 1:
            raise RecipeError(f"{name!r} of ft is {value}; it must be at least 1.")
