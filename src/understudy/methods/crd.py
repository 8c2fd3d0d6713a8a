"""Tian, Krishnan, Isola: "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.

    L    = h(uˢ) + h(uᵗ)
    h(u) = − 1/B Σᵢ [ log( uᵢ₀ / (uᵢ₀ + c) ) + Σⱼ₌₁ᴷ log( (K/n) / (uᵢⱼ + c) ) ],     c = K/n + ε
    uˢᵢⱼ = exp( ⟨Mᵗ_{aᵢⱼ}, vˢᵢ⟩ / τ ) / Z_s,     vˢ = (A s + a) / ‖A s + a‖,     and so for t

s, t are the penultimate features of student and teacher, v ∈ R^{B×d} their unit-length embeddings
by trained linear layers, Mˢ and Mᵗ ∈ R^{n×d} the memory banks of all n training images, aᵢ₀ the
image itself and aᵢ₁ … aᵢ_K images of other classes (the negatives), drawn without replacement if
there are at least K. Z is n times the mean exponential over the first batch. After the loss, the
rows of M for the images of the batch become m M + (1 − m) v, scaled to length 1. Code of the
authors: github.com/HobbitLong/RepDistiller.

The numbers are those of the code, at a tenth of the cost: the code gathers B·(K + 1) vectors for
each network and multiplies them one by one. Here one matrix product scores all n images, and only
scores are gathered. h is a logistic loss, −log( u / (u + c) ) = softplus(−x) and
log( (u + c) / c ) = softplus(x) for x = log( u / c ). Its derivative is computed along with its
value: a second matrix product turns it into the gradient of v, so that no B×n tensor is stored for
the backward pass.

Differences from the released code: Z is detached; a zero row stays zero; an image without label is
a class of its own. In evaluation mode nothing is drawn and no memory is updated: the loss is the
expectation over the draw. With several processes, each one stores the images of all.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.config.limits import Count, Positive, Share
from understudy.errors import ShapeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import (
    batch_mean,
    is_distributed,
    linear_no_grad,
    rows_of_all_processes,
    unit,
)
from understudy.methods._method import Method

EPS = 1e-7
"""ε of the equation."""


@dataclass(frozen=True)
class Contrast:
    """Positive and negatives of each image of a batch.

    Attributes:
        own: Index of each image, its own positive.
        others: Indices of its negatives.
        share: Number of the K draws that each negative stands for.
        draws: K.
    """

    own: Int[Tensor, "batch 1"]
    others: Int[Tensor, "batch negatives"]
    share: Float[Tensor, "batch negatives"] | float
    draws: int


def crd(
    anchor: Float[Tensor, "batch dim"],
    memory: Float[Tensor, "images dim"],
    contrast: Contrast,
    z: Float[Tensor, ""],
    temperature: Positive = 0.07,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
    """Compute h of each anchor v against the other network's memory, and return the Z used.

    A `z` of 0, as before the first batch, is replaced by the Z of this batch.
    """
    images, share = len(memory), contrast.share
    # ⟨M_j, vᵢ⟩ / τ for all n images, of which h needs the positive and the negatives.
    scores = linear_no_grad(anchor.detach() / temperature, memory)
    own, others = scores.gather(1, contrast.own), scores.gather(1, contrast.others)
    mean = (own.exp().sum(1) + (share * others.exp()).sum(1)) / (contrast.draws + 1)
    z = torch.where(z > 0, z, images * _global_mean(mean))
    noise = contrast.draws / images
    log_c = (z * (noise + EPS)).log()
    # x = log(u / c) = score − log(Z c)
    own, others = own - log_c, others - log_c
    rows = F.softplus(-own).sum(1) + (share * F.softplus(others)).sum(1)
    # −log( (K/n) / (u + c) ) = softplus(x) + log(c n / K), where c n / K = 1 + ε n / K.
    rows = rows + contrast.draws * torch.log1p(z.new_tensor(EPS / noise))
    # d rows / d score: −σ(−x) of the positive, σ(x) of each negative; a repeated negative adds up.
    # Reuses the memory of the scores, the largest tensor here.
    slopes = scores.zero_().scatter_add_(1, contrast.others, share * others.sigmoid())
    slopes.scatter_add_(1, contrast.own, -(-own).sigmoid())
    gradient = linear_no_grad(slopes, memory.T) / temperature
    # The added term has value 0, and this gradient.
    return rows + ((anchor - anchor.detach()) * gradient).sum(1), z


@final
class CRD(Method):
    """Contrastive: the student's embedding of an image is closest to the teacher's of that image.

    Published weight: 0.8, alone or with `kd` of weight 1. Stores 2·n·d numbers and needs a B×n
    tensor in each step.

    Args:
        student: Shapes of the student; needs the vector `penultimate`.
        teacher: Shapes of the teacher; needs the vector `penultimate`.
        dim: d.
        negatives: K.
        temperature: τ.
        momentum: m.
    """

    published_weight: ClassVar[float] = 0.8
    requires_softmax: ClassVar[bool] = True
    requires_hard_labels: ClassVar[bool] = True
    requires_image_index: ClassVar[bool] = True
    student_memory: Float[Tensor, "images dim"]
    teacher_memory: Float[Tensor, "images dim"]
    labels: Int[Tensor, " images"]
    z: Float[Tensor, "2"]
    seed: Int[Tensor, ""]
    fewest_others: int
    most_others: int

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        dim: Count = 128,
        negatives: Count = 16384,
        temperature: Positive = 0.07,
        momentum: Share = 0.5,
    ) -> None:
        super().__init__()
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.ours = nn.Linear(student.vector("penultimate"), dim)
        self.theirs = nn.Linear(teacher.vector("penultimate"), dim)
        self.register_buffer("student_memory", torch.zeros(0, dim))
        self.register_buffer("teacher_memory", torch.zeros(0, dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("z", torch.zeros(2))
        # Drawn here, so that a second `prepare` gives the same initial memory.
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_count)  # type: ignore[no-untyped-call]
        self.prepared = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate feature."""
        return ("penultimate",)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Store the class of every training image, and initialise the memory at random.

        Raises:
            ShapeError: The images are not numbered from 0, or all have one class.
        """
        self.labels = _labels(teacher).to(self.labels)
        random = torch.Generator().manual_seed(int(self.seed))
        size = len(self.labels), self.ours.out_features
        # U(−√(3/d), √(3/d)) has the variance 1/d: rows of expected squared length 1.
        bound = (3 / self.ours.out_features) ** 0.5
        for name in ("student_memory", "teacher_memory"):
            drawn = torch.empty(size).uniform_(-bound, bound, generator=random)
            setattr(self, name, drawn.to(self.z))
        self.z.zero_()
        self.prepared = True
        _count(self)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are those stored by `prepare`."""
        s, t = unit(self.ours(student["penultimate"])), unit(self.theirs(teacher["penultimate"]))
        contrast = self._contrast(batch.index)
        h_s, z_s = crd(s, self.teacher_memory, contrast, self.z[0], self.temperature)
        h_t, z_t = crd(t, self.student_memory, contrast, self.z[1], self.temperature)
        if self.training:
            self.z.copy_(torch.stack([z_s, z_t]))
            self._remember(batch.index, s.detach(), t.detach())
        return batch_mean(h_s + h_t)

    def _contrast(self, index: Int[Tensor, " batch"]) -> Contrast:
        """Draw negatives; in evaluation mode take every other image with its expected share."""
        own, draws = index.unsqueeze(1), self.negatives
        differ = self.labels[own] != self.labels
        if self.training:
            return Contrast(own, self._draw(differ), 1.0, draws)
        everyone = torch.arange(len(self.labels), device=index.device).expand_as(differ)
        # The image itself and others of its class get the share 0.
        share = draws * differ / differ.sum(1, keepdim=True)
        return Contrast(own, everyone, share.to(self.z), draws)

    def _draw(self, differ: Tensor) -> Int[Tensor, "batch negatives"]:
        """Draw indices of K images of other classes, without replacement if there are K."""
        if self.most_others < self.negatives:
            return differ.float().multinomial(self.negatives, replacement=True)
        # The K smallest of random keys are a draw without replacement; 2 is above all of them.
        keys = torch.rand(differ.shape, dtype=torch.float32, device=differ.device).masked_fill_(
            ~differ, 2
        )
        # Bits of non-negative floats, read as integers, have the same order and compare faster.
        others = keys.view(torch.int32).topk(self.negatives, largest=False, sorted=False).indices
        if self.fewest_others >= self.negatives:
            return others
        repeated = differ.float().multinomial(self.negatives, replacement=True)
        return torch.where(differ.sum(1, keepdim=True) >= self.negatives, others, repeated)

    @torch.no_grad()
    def _remember(self, index: Tensor, s: Tensor, t: Tensor) -> None:
        """Move the memory of these images towards their embeddings."""
        index, s, t = (rows_of_all_processes(x) for x in (index, s, t))
        for memory, v in ((self.student_memory, s), (self.teacher_memory, t)):
            memory[index] = unit(self.momentum * memory[index] + (1 - self.momentum) * v)


def _labels(teacher: TeacherOutputs) -> Int[Tensor, " images"]:
    """Return the class of every image; an image without label gets a class of its own."""
    batches = (batch for _, batch in teacher.batches(augmented=False))
    known = [torch.stack([batch.index, batch.labels]).cpu() for batch in batches]
    index, labels = torch.cat(known, dim=1).unbind()
    images = len(index)
    if not torch.equal(index.sort().values, torch.arange(images)):
        raise ShapeError(
            "crd stores a vector for every training image, by its number, but the numbers of these "
            f"{images} images are not 0 to {images - 1}; give Batches with their `index`."
        )
    labels = labels[index.argsort()]
    own_class = labels.max() + 1 + torch.arange(images)
    labels = labels.where(labels != UNLABELLED, own_class)
    if (labels == labels[0]).all():
        raise ShapeError(
            f"crd contrasts images of different classes, but all {images} training images are of "
            "one class; use a method that compares features, such as lshfm."
        )
    return labels


def _make_room(crd: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Resize the buffers to those in a state dict, whose size depends on the training images."""
    for name in ("student_memory", "teacher_memory", "labels"):
        if prefix + name in state:
            buffer = crd.get_buffer(name)
            setattr(crd, name, buffer.new_zeros(state[prefix + name].shape))


def _count(crd: nn.Module, incompatible_keys: object = None) -> None:
    """Store the smallest and the largest number of images of other classes that an image has."""
    labels = crd.get_buffer("labels")
    sizes = labels.bincount()
    for name, size in (("fewest_others", sizes.max()), ("most_others", sizes[sizes > 0].min())):
        setattr(crd, name, len(labels) - int(size))


def _global_mean(rows: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Average the rows of all processes; every process gets the same number."""
    # `batch_mean` is scaled for averaging over processes, which is done here for the value.
    mean = batch_mean(rows)
    if is_distributed():
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean
