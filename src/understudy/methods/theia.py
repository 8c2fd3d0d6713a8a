"""Shang et al.: "Theia: Distilling Diverse Vision Foundation Models", CoRL 2024, arXiv 2407.20179.

    L = α (1 − cos(p, q)) + β SL1(p, q),     α = 0.9,  β = 0.1

p, q ∈ R^{B×N×D} are the N patches of student and teacher, the student's behind a translator and the
teacher's at mean 0 and deviation 1 of each dimension over the training images. The cosine is that
of whole maps, of N·D entries each, not of single tokens; SL1 is the mean smooth L1 distance of
threshold 1. Both are averaged over the B images. With `summaries`, summaries are compared in the
same way, and the loss is the mean of both. Nothing of it needs labels.

The translator is LayerNorm and three 3×3 convolutions with ReLU between them. The student's map is
resized bilinearly to the teacher's grid before it; the code resizes by nearest neighbour, as its
mode is never set. The code's weights for single teachers have no effect on the cosine, and fail as
a mapping; here there are none.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count, NonNegative
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._standardise import Kind, Standardiser, measure
from understudy.methods._tokens import (
    check_same_images,
    one_minus_cosine,
    patch_maps,
    per_position,
    smooth_l1,
    summaries,
    tokens,
)


def cosine(
    student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Compute 1 − cos of each image's whole feature."""
    return one_minus_cosine(student.flatten(1), teacher.flatten(1))


def l1(
    student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Average the smooth L1 distance over each image's whole feature."""
    return smooth_l1(student.flatten(1), teacher.flatten(1))


def theia(
    student: Float[Tensor, "batch ..."],
    teacher: Float[Tensor, "batch ..."],
    cosine_weight: NonNegative = 0.9,
    l1_weight: NonNegative = 0.1,
) -> Float[Tensor, " batch"]:
    """Compute the loss of each image on one feature: the tokens of a map, or a vector."""
    return cosine_weight * cosine(student, teacher) + l1_weight * l1(student, teacher)


@final
class Theia(Method):
    """A translator of three convolutions predicts the teacher's standardised map.

    Published weight: 1, alone; AdamW, lr 2e-3 · batch / 512, constant after a warm-up, 50 epochs.

    Args:
        student: Shapes of the student; needs a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        cosine_weight: α.
        l1_weight: β.
        summaries: Compare summaries too, the student's behind a linear layer.
        hidden: Channels between the convolutions; default: the teacher's.
        standardise: Standardisation of the teacher's features; see `understudy show radio`.
        patches: Maps to compare, such as `stage4:patches`, the student's first; default: `patches`
            of a network that names it, else its last stage.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"detection": {"patches": "p5"}}

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        cosine_weight: NonNegative = 0.9,
        l1_weight: NonNegative = 0.1,
        summaries: bool = False,
        hidden: Count | None = None,
        standardise: Kind = "frozen",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.weights = cosine_weight, l1_weight
        self.patches = patch_maps(student, teacher, patches)
        width = teacher.width(self.patches[1])
        self.norm = nn.LayerNorm(student.width(self.patches[0]))
        self.translator = _translator(student.width(self.patches[0]), hidden or width, width)
        self.standardisers = nn.ModuleDict({"patches": Standardiser(standardise, width)})
        self.summary = _summaries(student, teacher) if summaries else None
        if self.summary:
            s, t = self.summary
            self.summary_head = nn.Linear(student.width(s), teacher.width(t))
            self.standardisers["summary"] = Standardiser(standardise, teacher.width(t))
        self.prepared = not any(each.measures for each in self._by_name().values())

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the patches and, if compared, the summary."""
        return (self.patches[1], *([self.summary[1]] if self.summary else []))

    def projected(self, student: Features) -> Features:
        """Return the outputs of translator and summary head, in the teacher's own scale."""
        restore = self._by_name()
        p = self._translated(self.student_as_map(student, self.patches[0]))
        rows = restore[self.patches[1]].restore(tokens(p))
        result = {self.patches[1]: rows.mT.reshape_as(p)}
        if self.summary:
            s, t = self.summary
            result[t] = restore[t].restore(self.summary_head(student[s]))
        return result

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure mean and deviation of the teacher's features."""
        measure(self._by_name(), teacher, self.teacher_as_map)
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        q = self.teacher_as_map(teacher, self.patches[1])
        p = self._translated(resize(self.student_as_map(student, self.patches[0]), q.shape[2:]))
        by_name = self._by_name()
        losses = [theia(tokens(p), by_name[self.patches[1]](tokens(q)), *self.weights)]
        if self.summary:
            s, t = self.summary
            check_same_images("theia", teacher[t], q, "set summaries to false")
            losses.append(
                theia(self.summary_head(student[s]), by_name[t](teacher[t]), *self.weights)
            )
        return batch_mean(torch.stack(losses).mean(0))

    def _translated(self, x: Tensor) -> Float[Tensor, "batch dim h w"]:
        y: Tensor = self.translator(per_position(self.norm, x))
        return y

    def _by_name(self) -> dict[str, Standardiser]:
        return dict(zip(self.reads, self.standardisers.values(), strict=True))  # type: ignore[arg-type]


def _summaries(student: Shapes, teacher: Shapes) -> tuple[str, str]:
    return summaries(student, teacher, "")


def _translator(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, 3, padding=1),
    )
