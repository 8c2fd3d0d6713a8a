"""Sarıyıldız et al.: "UNIC: Universal Classification Models via Multi-teacher Distillation".

ECCV 2024, arXiv 2408.05088.

    L     = Σₖᵢ κₖᵢ ℓₖᵢ / Σₖᵢ κₖᵢ
    ℓₖᵢ   = ½ [ d(sₖᵢ, tₖᵢ) + 1/N Σₘ d(pₖᵢₘ, qₖᵢₘ) ]
    d     = λ_c (1 − cos) + λ₁ SL1

sₖ, tₖ ∈ R^{B×D} are the summaries of student and teacher k, pₖ, qₖ their N patches, SL1 the mean
over dimensions of the smooth L1 distance of threshold 1. Summaries and patches of a teacher are
standardised for themselves: mean 0 and deviation 1 of each dimension, by a moving average
(`methods/_standardise.py`). The student predicts them by a *ladder*: for each teacher and kind of
token the sum of perceptrons of two layers on all of its stages. Of a stage that is a map, the
summary is its mean over positions; for patches it is resized bilinearly to the teacher's grid.

With several teachers, κ drops some: the teacher with the largest loss on an image stays, and each
other is dropped with probability ½, in every step anew. Nothing of it needs labels.

Differences from the released code:
- It divides by the sum of κ over the whole batch, so that an image that keeps three teachers counts
  three times as much as one that keeps one, though a comment there says that all count alike. Here
  they do; `weighting="published"` is the code's.
- It drops teachers in validation too; here all are kept in evaluation.
- Its first step compares raw features; see `momentum_steps`.
- It needs equal grids; here maps are resized.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count, NonNegative, Positive, Share
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.methods._joined import Joined
from understudy.methods._projectors import resize
from understudy.methods._standardise import Kind, Standardiser, measure
from understudy.methods._tokens import (
    INITIAL_STD,
    check_same_images,
    cosine_and_l1,
    patches,
    summary,
    tokens,
)

Weighting = Literal["image", "published"]


def unic(
    summaries: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]],
    patches: tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch tokens dim"]],
    cosine_weight: NonNegative = 0.5,
    l1_weight: NonNegative = 0.5,
) -> Float[Tensor, " batch"]:
    """Compute ℓ of each image for one teacher, from pairs of student and teacher."""
    of_summary = cosine_and_l1(*summaries, cosine_weight, l1_weight)
    return (of_summary + cosine_and_l1(*patches, cosine_weight, l1_weight).mean(1)) / 2


def kept(
    losses: Float[Tensor, "teachers batch"], drop: Share = 0.5
) -> Bool[Tensor, "teachers batch"]:
    """Draw κ: for each image the teacher of the largest loss, and each other with 1 − `drop`."""
    largest = losses.argmax(0, keepdim=True)
    stays = torch.rand(losses.shape, device=losses.device) >= drop
    return stays.scatter(0, largest, True)


def shares(
    losses: Float[Tensor, "teachers batch"],
    kept: Bool[Tensor, "teachers batch"],
    weighting: Weighting = "image",
) -> Float[Tensor, " teachers"]:
    """Return each teacher's share in the average of the losses of teachers that are kept.

    The average, their sum, is over the teachers of each image first, or over all pairs at once.
    """
    losses = torch.where(kept, losses, 0)
    if weighting == "published":
        own = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        parts = own[:, :, None] * losses  # of each teacher, and 0 of the others
        return batch_mean(parts.flatten(1).T, kept.flatten())
    return batch_mean((losses / kept.sum(0)).T)


@final
class Ladder(nn.Module):
    """Sum of a perceptron of two layers on each of several features.

    Args:
        inputs: Widths of the features, first to last.
        outputs: Width of the sum.
        hidden: Width of the hidden layers.
        last_hidden: That of the last feature.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: int, *, hidden: int = 768, last_hidden: int = 3072
    ) -> None:
        super().__init__()
        widths = [hidden] * (len(inputs) - 1) + [last_hidden]
        self.rungs = nn.ModuleList(
            nn.Sequential(nn.Linear(i, w), nn.GELU(), nn.Linear(w, outputs))
            for i, w in zip(inputs, widths, strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, features: list[Float[Tensor, "*rows inputs"]]) -> Float[Tensor, "*rows dim"]:
        """Return the sum over the features."""
        rungs = zip(self.rungs, features, strict=True)
        return torch.stack([rung(x) for rung, x in rungs]).sum(0)


@final
class UNIC(Joined):
    """Ladders on all stages predict the standardised summary and patches of one or more teachers.

    Several networks of a recipe (`teachers:`) that each have `unic` are the teachers k of one loss.

    Published weight: 1, alone; AdamW, lr 3e-4 · batch / 256, 200 epochs.

    Args:
        student: Shapes of the student; needs the vector `penultimate` (or `cls`), and stages.
        teacher: Shapes of the teacher; needs the vector `penultimate` (or `cls`), and a map or a
            grid of tokens.
        teachers: Names of several teachers whose features the teacher gives, each behind its name:
            `[dino, siglip]` reads `dino/cls`, `dino/patches`, and so on; empty for a single one.
        stages: Stages of the student that the ladders stand on; default: all.
        cosine_weight: λ_c.
        l1_weight: λ₁.
        drop: Probability with which a teacher that is not the worst on an image is dropped.
        weighting: Average over the teachers of each image first, or as `published`.
        hidden: Width of the hidden layers of a ladder.
        last_hidden: That on the last stage.
        standardise: Standardisation of the teacher's features; see `understudy show radio`.
        momentum: ρ of the moving averages.
        momentum_steps: Steps over which ρ falls from 1 to `momentum`, with statistics that start
            from mean 0 and deviation 1, as published; default: they start from those measured.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        teachers: tuple[str, ...] = (),
        stages: tuple[str, ...] = (),
        cosine_weight: NonNegative = 0.5,
        l1_weight: NonNegative = 0.5,
        drop: Share = 0.5,
        weighting: Weighting = "image",
        hidden: Count = 768,
        last_hidden: Count = 3072,
        standardise: Kind = "ema",
        momentum: Positive = 0.001,
        momentum_steps: Count | None = None,
    ) -> None:
        super().__init__(student, teacher)
        self.drop, self.weighting = drop, weighting
        self.weights = cosine_weight, l1_weight
        self.summary = summary(student, student=True)
        self.stages = tuple(patches(student, name) for name in stages or student.stages)
        self.targets = tuple(_target(teacher, name) for name in teachers or ("",))
        maps = tuple(student.width(name) for name in self.stages)
        # The last rung of a summary stands on the student's own, not on the mean of its last stage.
        vectors = (*maps[:-1], student.vector(self.summary))
        self.ladders, self.standardisers = nn.ModuleList(), nn.ModuleList()
        for names in self.targets:
            for name, inputs in zip(names, (vectors, maps), strict=True):
                width = teacher.width(name)
                ladder = Ladder(inputs, width, hidden=hidden, last_hidden=last_hidden)
                self.ladders.append(ladder)
                self.standardisers.append(
                    Standardiser(
                        standardise, width, momentum=momentum, momentum_steps=momentum_steps
                    )
                )
        self.prepared = not any(each.measures for each in self._by_name().values())

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: summary and patches of every teacher."""
        return tuple(name for names in self.targets for name in names)

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the statistics that the moving averages start from."""
        measure(self._by_name(), teacher, self.teacher_as_map)
        self.prepared = True

    @property
    def joining(self) -> Mapping[str, object]:
        """How teachers are dropped, and their losses averaged."""
        return {"drop": self.drop, "weighting": self.weighting}

    def image_losses(
        self, student: Features, teacher: Features, batch: Batch
    ) -> Float[Tensor, "teachers batch"]:
        """Return ℓ of each image for each teacher; labels are not used."""
        maps = [self.student_as_map(student, name) for name in self.stages]
        vectors = [x.mean((2, 3)) for x in maps[:-1]] + [student[self.summary]]
        return torch.stack(
            [self._of_one(number, vectors, maps, teacher) for number in range(len(self.targets))]
        )

    def join(self, losses: Float[Tensor, "teachers batch"]) -> Float[Tensor, " teachers"]:
        """Return the share of each teacher in L, with some of them dropped in training."""
        several = len(losses) > 1 and self.training
        keep = kept(losses, self.drop) if several else torch.ones_like(losses, dtype=torch.bool)
        return shares(losses, keep, self.weighting)

    def _of_one(
        self, number: int, vectors: list[Tensor], maps: list[Tensor], teacher: Features
    ) -> Float[Tensor, " batch"]:
        """Return ℓ of each image for teacher `number`."""
        of_summary, of_patches = self.targets[number]
        t, q = teacher[of_summary], self.teacher_as_map(teacher, of_patches)
        check_same_images("unic", t, q, "use theia or dense_mse, which compare maps alone")
        at_grid = [tokens(resize(x, q.shape[2:])) for x in maps]
        s, p = (self.ladders[2 * number + part](x) for part, x in enumerate((vectors, at_grid)))
        t, q = (self.standardisers[2 * number + i](x) for i, x in enumerate((t, tokens(q))))
        return unic((s, t), (p, q), *self.weights)

    def _by_name(self) -> dict[str, Standardiser]:
        return dict(zip(self.reads, self.standardisers, strict=True))  # type: ignore[arg-type]


def _target(teacher: Shapes, name: str) -> tuple[str, str]:
    """Return the names of summary and patches of one of several teachers, or of the only one."""
    if not name:
        return summary(teacher), patches(teacher)
    return summary(teacher, f"{name}/cls"), patches(teacher, f"{name}/patches")
