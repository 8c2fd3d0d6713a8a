"""Oquab et al.: "DINOv2: Learning Robust Visual Features without Supervision", arXiv 2304.07193.

    L = 1/(B·H·W·D) Σᵢₘ ‖ resize( P(sᵢ) )ₘ − xᵢₘ ‖²,     x = [ t¹ ; … ; tⁿ ]

Regression of a transformer's patches, as LightlyTrain distils DINOv2 (`distillationv2`,
github.com/lightly-ai). s is a map of the student, P a head on every position, and x the teacher's
maps, concatenated along their channels, with D in all; published are its last two layers, each
behind the final LayerNorm. Earlier maps of another size are resized to the grid H×W of the last
one, and so is the student's map behind P: bilinearly, corners not aligned. B is the batch size.
Nothing of it needs labels.

The published form compares raw features. Some transformers, DINOv3 among them, have a few
dimensions of huge values that outweigh all others: set `standardise`. As weights of P start small,
the first loss is about the mean square of the teacher's features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Count
from understudy.features import PREVIOUS_PATCHES, Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.methods import _tokens
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._standardise import Kind, Standardiser, measure
from understudy.methods._tokens import head, per_position, tokens


def dense_mse(
    student: Float[Tensor, "batch tokens dim"], teacher: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, " batch"]:
    """Average the squared differences of each image over its tokens and dimensions."""
    return (student - teacher).square().mean((1, 2))


@final
class DenseMSE(Method):
    """Dense regression: a head on the student's map predicts the teacher's patches.

    Published weight: 1, alone; LARS with lr 9 · √(batch / 1536), mixup of one share per batch.

    Args:
        student: Shapes of the student; needs a map or a grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        student_map: Map of the student; default: `patches` if it names it, else its last stage.
        teacher_maps: Maps of the teacher, of which the last has the grid that all are resized to;
            default: the patches of a transformer's last two blocks, each behind the last norm
            (`patches/previous` and `patches`), else `patches` alone or the last stage. Taps name
            those of more blocks.
        layers: Linear layers of P, with LayerNorm and GELU between them.
        hidden: Width between them.
        standardise: Standardisation of each map of the teacher; see `understudy show radio`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "detection": {"student_map": "p5", "teacher_maps": ("p5",)}
    }

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        student_map: str = "",
        teacher_maps: tuple[str, ...] = (),
        layers: Count = 1,
        hidden: Count = 2048,
        standardise: Kind = "none",
    ) -> None:
        super().__init__(student, teacher)
        self.student_map = _tokens.patches(student, student_map)
        names = teacher_maps or _last_layers(teacher)
        self.teacher_maps = tuple(_tokens.patches(teacher, name) for name in names)
        widths = [teacher.width(name) for name in self.teacher_maps]
        self.head = head(
            student.width(self.student_map),
            sum(widths),
            layers=layers,
            hidden=hidden,
            zero_bias=True,
        )
        self.standardisers = torch.nn.ModuleList(Standardiser(standardise, w) for w in widths)
        self.prepared = not any(each.measures for each in self._by_map().values())

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: its maps."""
        return self.teacher_maps

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the statistics of the teacher's maps, if they are standardised by any."""
        measure(self._by_map(), teacher, self.teacher_as_map)
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        by_map = self._by_map()
        maps = [self.teacher_as_map(teacher, name) for name in by_map]
        size = maps[-1].shape[2:]
        x = [each(tokens(resize(t, size))) for t, each in zip(maps, by_map.values(), strict=True)]
        s = self.student_as_map(student, self.student_map)
        predicted = resize(per_position(self.head, s), size)
        return batch_mean(dense_mse(tokens(predicted), torch.cat(x, 2)))

    def _by_map(self) -> dict[str, Standardiser]:
        return dict(zip(self.teacher_maps, self.standardisers, strict=True))  # type: ignore[arg-type]


def _last_layers(teacher: Shapes) -> tuple[str, ...]:
    """Return the maps that are compared by default; an empty name is the one by the rule."""
    published = PREVIOUS_PATCHES, "patches"
    return published if all(name in teacher for name in published) else ("",)
