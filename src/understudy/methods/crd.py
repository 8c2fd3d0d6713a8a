"""Tian, Krishnan, Isola: "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.

    L    = h(uˢ) + h(uᵗ)
    h(u) = − 1/B Σᵢ [ log( uᵢ₀ / (uᵢ₀ + c) ) + Σⱼ₌₁ᴷ log( (K/n) / (uᵢⱼ + c) ) ],     c = K/n + ε
    uˢᵢⱼ = exp( ⟨Mᵗ_{aᵢⱼ}, vˢᵢ⟩ / τ ) / Z_s,     vˢ = (A s + a) / ‖A s + a‖,     and so for t

s, t are the penultimate features of student and teacher, v ∈ R^{B×d} their directions behind
trained layers, Mˢ and Mᵗ ∈ R^{n×d} what is remembered of all n training images, aᵢ the image itself
and K images of other classes, drawn without replacement as long as there are K. Z is n times the
mean exponential of the first batch. After the loss, M of the images of the batch becomes the
direction of m M + (1 − m) v. Code of the authors: github.com/HobbitLong/RepDistiller.

The same numbers at a tenth of the cost: the code gathers B·(K + 1) vectors for each side and
multiplies them one by one. Here one matrix product scores all n images, and only numbers are
gathered. h is a logistic loss, −log( u / (u + c) ) = softplus(−x) and log( (u + c) / c ) =
softplus(x) for x = log( u / c ), whose slope is known with its value: a second product sums it
up to the gradient of v, and nothing of size B·n waits for the backward pass.

Where this departs from the released code: Z holds no graph; a zero row has no direction; an image
without label is a class of its own. In evaluation mode nothing is drawn or remembered: the loss is
the expectation over the draw. Several processes remember the images of all.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean, product, several_processes, unit
from understudy.methods._method import Method

EPS = 1e-7
"""ε of the equation."""


@dataclass(frozen=True)
class Contrast:
    """The images that each image of a batch is told from.

    Attributes:
        own: Number of each image.
        others: Numbers of images of other classes.
        share: How many of the K draws each of those stands for.
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
    temperature: float = 0.07,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
    """H of each anchor v against the other network's memory, and the Z that was used.

    That is the one given, or if that is 0, as before the first batch, the one of this batch.
    """
    images, share = len(memory), contrast.share
    scores = product(anchor.detach() / temperature, memory)
    own, others = scores.gather(1, contrast.own), scores.gather(1, contrast.others)
    mean = (own.exp().sum(1) + (share * others.exp()).sum(1)) / (contrast.draws + 1)
    z = torch.where(z > 0, z, images * _global_mean(mean))
    noise = contrast.draws / images
    log_c = (z * (noise + EPS)).log()
    own, others = own - log_c, others - log_c
    rows = F.softplus(-own).sum(1) + (share * F.softplus(others)).sum(1)
    rows = rows + contrast.draws * torch.log1p(z.new_tensor(EPS / noise))
    # In the place of the scores, the largest tensor here.
    slopes = scores.zero_().scatter_add_(1, contrast.others, share * others.sigmoid())
    slopes.scatter_add_(1, contrast.own, -(-own).sigmoid())
    gradient = product(slopes, memory.T) / temperature
    # Adds nothing but the gradient.
    return rows + ((anchor - anchor.detach()) * gradient).sum(1), z


@final
class CRD(Method):
    """Contrastive: a student's image is nearest to the same image as the teacher sees it.

    Published weight: 0.8, alone or beside `kd` of weight 1. Remembers 2 n d numbers, and works on
    B·n at a time.

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
        dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        if dim < 1 or negatives < 1 or not temperature > 0 or not 0 <= momentum <= 1:
            raise RecipeError(
                f"crd has dim {dim}, negatives {negatives}, temperature {temperature} and momentum "
                f"{momentum}; they must be at least 1, at least 1, above 0, and from 0 to 1."
            )
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.ours = nn.Linear(student.vector("penultimate"), dim)
        self.theirs = nn.Linear(teacher.vector("penultimate"), dim)
        self.register_buffer("student_memory", torch.zeros(0, dim))
        self.register_buffer("teacher_memory", torch.zeros(0, dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("z", torch.zeros(2))
        # Drawn now, so that measuring again gives the same memory.
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_count)  # type: ignore[no-untyped-call]
        self.prepared = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The penultimate feature."""
        return ("penultimate",)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Note the class of every training image, and remember each in a random direction.

        Raises:
            ShapeError: The images are not numbered, or all of one class.
        """
        self.labels = _labels(teacher).to(self.labels)
        random = torch.Generator().manual_seed(int(self.seed))
        size, bound = (
            (len(self.labels), self.ours.out_features),
            (3 / self.ours.out_features) ** 0.5,
        )
        for name in ("student_memory", "teacher_memory"):
            drawn = torch.empty(size).uniform_(-bound, bound, generator=random)
            setattr(self, name, drawn.to(self.z))
        self.z.zero_()
        self.prepared = True
        _count(self)

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are those of `prepare`."""
        s, t = unit(self.ours(student["penultimate"])), unit(self.theirs(teacher["penultimate"]))
        contrast = self._contrast(batch.index)
        ours, z_s = crd(s, self.teacher_memory, contrast, self.z[0], self.temperature)
        theirs, z_t = crd(t, self.student_memory, contrast, self.z[1], self.temperature)
        if self.training:
            self.z.copy_(torch.stack([z_s, z_t]))
            self._remember(batch.index, s.detach(), t.detach())
        return batch_mean(ours + theirs)

    def _contrast(self, index: Int[Tensor, " batch"]) -> Contrast:
        """The draws of a batch; in evaluation mode each other image, for its expected share."""
        own, draws = index.unsqueeze(1), self.negatives
        differ = self.labels[own] != self.labels
        if self.training:
            return Contrast(own, self._draw(differ), 1.0, draws)
        everyone = torch.arange(len(self.labels), device=index.device).expand_as(differ)
        share = draws * differ / differ.sum(1, keepdim=True)
        return Contrast(own, everyone, share.to(self.z), draws)

    def _draw(self, differ: Tensor) -> Int[Tensor, "batch negatives"]:
        """Numbers of K images of other classes: without replacement wherever there are K."""
        if self.most_others < self.negatives:
            return differ.float().multinomial(self.negatives, replacement=True)
        keys = torch.rand(differ.shape, dtype=torch.float32, device=differ.device).masked_fill_(
            ~differ, 2
        )
        # The bits of floats that are not negative have their order, and are faster to compare.
        others = keys.view(torch.int32).topk(self.negatives, largest=False, sorted=False).indices
        if self.fewest_others >= self.negatives:
            return others
        again = differ.float().multinomial(self.negatives, replacement=True)
        return torch.where(differ.sum(1, keepdim=True) >= self.negatives, others, again)

    @torch.no_grad()
    def _remember(self, index: Tensor, s: Tensor, t: Tensor) -> None:
        index, s, t = (_of_all_processes(x) for x in (index, s, t))
        for memory, v in ((self.student_memory, s), (self.teacher_memory, t)):
            memory[index] = unit(self.momentum * memory[index] + (1 - self.momentum) * v)


def _labels(teacher: TeacherOutputs) -> Int[Tensor, " images"]:
    """Class of every image, one of its own where it is not known."""
    batches = (batch for _, batch in teacher.batches(augmented=False))
    known = [torch.stack([batch.index, batch.labels]).cpu() for batch in batches]
    index, labels = torch.cat(known, dim=1).unbind()
    images = len(index)
    if not torch.equal(index.sort().values, torch.arange(images)):
        raise ShapeError(
            "crd remembers every training image by its number, but the numbers of these "
            f"{images} images are not 0 to {images - 1}; give Batches with their `index`."
        )
    labels = labels[index.argsort()]
    alone = labels.max() + 1 + torch.arange(images)
    labels = labels.where(labels != UNLABELLED, alone)
    if (labels == labels[0]).all():
        raise ShapeError(
            f"crd tells images from those of other classes, but all {images} training images are "
            "of one class; use a method that compares features, such as lshfm."
        )
    return labels


def _make_room(crd: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the buffers the size of those to be loaded, which depends on the training images."""
    for name in ("student_memory", "teacher_memory", "labels"):
        if prefix + name in state:
            buffer = crd.get_buffer(name)
            setattr(crd, name, buffer.new_zeros(state[prefix + name].shape))


def _count(crd: nn.Module, incompatible_keys: object = None) -> None:
    """Note how many images of other classes an image has at least and at most."""
    labels = crd.get_buffer("labels")
    sizes = labels.bincount()
    for name, size in (("fewest_others", sizes.max()), ("most_others", sizes[sizes > 0].min())):
        setattr(crd, name, len(labels) - int(size))


def _global_mean(rows: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Mean over the rows of all processes, the same number in each."""
    mean = batch_mean(rows)
    if several_processes():
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean


def _of_all_processes(rows: Tensor) -> Tensor:
    """The rows of all processes, which may have different numbers of them, in order."""
    if not several_processes():
        return rows
    lengths = torch.zeros(dist.get_world_size(), dtype=torch.long, device=rows.device)
    lengths[dist.get_rank()] = len(rows)
    dist.all_reduce(lengths)
    # What is gathered must be equally long everywhere.
    padded = rows.new_zeros(int(lengths.max()), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, lengths.tolist(), strict=True)])
