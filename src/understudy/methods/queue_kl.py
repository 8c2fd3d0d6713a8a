"""Fang et al.: "SEED: Self-supervised Distillation for Visual Representation", ICLR 2021.

arXiv 2101.04731. The form is that of LightlyTrain's `distillationv3` (github.com/lightly-ai), and
of its `distillationv1` if `affinity_weight` is 0.

    L     = L_g + λ L_l
    L_g   = 1/B Σᵢ KL( softmax(uᵗᵢ Qᵀ / τ) ‖ softmax(uˢᵢ Qᵀ / τ) )
    L_l   = 1/(B·N) Σᵢₘ KL( softmaxₙ(eᵢₘ·eᵢₙ / τ_l) ‖ softmaxₙ(aᵢₘ·aᵢₙ / τ_l) )

uˢ, uᵗ ∈ R^{B×D} are the summaries of student and teacher at length 1, the student's behind a linear
head, and Q ∈ R^{q×D} is a queue of the latest uᵗ, that of this batch included, so that every image
has a class of its own. L_l compares the affinities of all pairs of the N patches of an image: e are
the teacher's patches and a the student's, behind a second linear head and resized bilinearly to the
teacher's grid, both at length 1. There is no factor τ². B is the batch size. Nothing of it needs
labels.

The queue begins with zero rows, which are classes with similarity 0 until it is full. Its size
follows from the number of training images, from 16 for fewer than 50 to 8192 from 20,000 on. Its
contents are part of the state, so that a run continues exactly.

Differences from the released code:
- Similarities are computed in fp32 under autocast. In bf16, as there, a logit at τ = 0.07 is off by
  up to 0.03.
- With several processes the queue takes the images of all of them; there, each has its own.
- In evaluation the batch is put in front of the queue for its own loss, and not stored.
- The code's queue takes the first q images of a batch of q or more, and drops the others without a
  word; here that is said.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count, NonNegative, Positive
from understudy.errors import RecipeError
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean, kl_divergence, rows_of_all_processes, unit
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._tokens import (
    check_same_images,
    head,
    patch_maps,
    per_position,
    summaries,
)
from understudy.methods._tokens import tokens as tokens_of

LOGGER = logging.getLogger("understudy")

SIZES = (
    *((50, 16), (100, 32), (250, 64), (500, 128), (1000, 256), (2000, 512), (4000, 1024)),
    *((10_000, 2048), (20_000, 4096)),
)
"""Size of the queue for fewer than so many images."""

LARGEST = 8192
"""Size of the queue for any more images."""


def queue_size(images: int) -> int:
    """Return the size of the queue for a number of training images."""
    return next((size for below, size in SIZES if images < below), LARGEST)


def pushed(
    queue: Float[Tensor, "size dim"], rows: Float[Tensor, "batch dim"]
) -> Float[Tensor, "size dim"]:
    """Return the queue with the rows in front, and its oldest rows gone."""
    return torch.cat([rows, queue])[: len(queue)]


def queue_kl(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "size dim"],
    temperature: Positive = 0.07,
) -> Float[Tensor, " batch"]:
    """Compute the KL divergence of the similarities of each row to the queue; all rows unit."""
    return kl_divergence(student @ queue.T, teacher @ queue.T, temperature)


def affinity_kl(
    student: Float[Tensor, "batch tokens dim_s"],
    teacher: Float[Tensor, "batch tokens dim_t"],
    temperature: Positive = 0.07,
) -> Float[Tensor, " batch"]:
    """Compute the KL divergence of the affinities of each token, averaged over an image's tokens.

    All tokens are unit. An image of a single token has loss 0.
    """
    a, e = student @ student.mT, teacher @ teacher.mT
    return kl_divergence(a, e, temperature).mean(1)


@final
class QueueKL(Method):
    """Similarities to a queue of the teacher's images, and between an image's patches, match.

    LightlyTrain trains with weight 1 on this loss alone; AdamW, lr 5e-4 · √(batch / 1536), mixup of
    one share per batch, long schedules.

    Args:
        student: Shapes of the student; needs the vector `penultimate` (or `cls`) and, unless
            `affinity_weight` is 0, a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        queue: q, below the number of training images; default: by that number.
        temperature: τ.
        affinity_weight: λ; 0 compares summaries alone, as `distillationv1`.
        affinity_temperature: τ_l.
        summary: Vectors to compare, such as `penultimate:cls`, the student's first; default:
            `penultimate` of the student, and of a teacher without `cls`.
        patches: Maps to compare, such as `stage4:patches`; default: `patches` of a network that
            names it, else its last stage.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"detection": {"affinity_weight": 0.0}}
    queue: Float[Tensor, "size dim"]

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        queue: Count | None = None,
        temperature: Positive = 0.07,
        affinity_weight: NonNegative = 1.0,
        affinity_temperature: Positive = 0.07,
        summary: str = "",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.size, self.temperature = queue, temperature
        self.affinity_weight, self.affinity_temperature = affinity_weight, affinity_temperature
        self.summary = summaries(student, teacher, summary)
        dim = teacher.vector(self.summary[1])
        self.head = head(student.vector(self.summary[0]), dim)
        self.register_buffer("queue", torch.zeros(queue or 0, dim))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.patches: tuple[str, str] | None = None
        if affinity_weight:
            self.patches = patch_maps(student, teacher, patches)
            s, t = self.patches
            self.patch_head = head(student.width(s), teacher.width(t))
        self.warned = False
        self.prepared = queue is not None

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the summary and, for affinities, the patches."""
        return (self.summary[1], *([self.patches[1]] if self.patches else []))

    def projected(self, student: Features) -> Features:
        """Return the outputs of the heads."""
        (s, t), patches = self.summary, self.patches
        result = {t: self.head(student[s])}
        if patches:
            s_map = self.student_as_map(student, patches[0])
            result[patches[1]] = per_position(self.patch_head, s_map)
        return result

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Empty the queue, and choose its size by the number of training images.

        Raises:
            RecipeError: The given size is not below that number.
        """
        images = teacher.num_images
        if self.size is not None and self.size >= images:
            raise RecipeError(
                f"'queue' of queue_kl is {self.size} and there are {images} training images; it "
                f"must hold fewer: leave it out for {queue_size(images)}."
            )
        size = queue_size(images) if self.size is None else self.size
        self.queue = self.queue.new_zeros(size, self.queue.shape[1])
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s, t = unit(self.head(student[self.summary[0]])), unit(teacher[self.summary[1]])
        rows = queue_kl(s, t, self._with(t), self.temperature)
        if self.patches:
            check_same_images("queue_kl", s, teacher[self.patches[1]], "set affinity_weight to 0")
            rows = rows + self.affinity_weight * self._affinity(student, teacher, self.patches)
        return batch_mean(rows)

    def _with(self, t: Float[Tensor, "batch dim"]) -> Float[Tensor, "size dim"]:
        """Return the queue with the images of all processes in front; stored in training."""
        rows = rows_of_all_processes(t)
        self._warn_of_many(len(rows))
        queue = pushed(self.queue, rows)
        if self.training:
            self.queue.copy_(queue)
        return queue

    def _affinity(
        self, student: Features, teacher: Features, names: tuple[str, str]
    ) -> Float[Tensor, " batch"]:
        e = self.teacher_as_map(teacher, names[1])
        a = resize(
            per_position(self.patch_head, self.student_as_map(student, names[0])), e.shape[2:]
        )
        a, e = (unit(tokens_of(x)) for x in (a, e))
        return affinity_kl(a, e, self.affinity_temperature)

    def _warn_of_many(self, rows: int) -> None:
        if rows < len(self.queue) or self.warned or torch.compiler.is_compiling():
            return
        self.warned = True
        LOGGER.warning(
            f"queue_kl: a batch of {rows} images fills the queue of {len(self.queue)}, and only "
            "its first images have a class of their own; a larger 'queue' or smaller batches help."
        )


def _make_room(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Resize the queue to that in a state dict, whose size depends on the training images."""
    if prefix + "queue" in state:
        old = module.get_buffer("queue")
        module.queue = old.new_zeros(state[prefix + "queue"].shape)
