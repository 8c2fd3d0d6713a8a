"""Chen et al.: "Knowledge Distillation with the Reused Teacher Classifier".

CVPR 2022, arXiv 2203.14001; code: github.com/DefangChen/SimKD.

    L = 1/(B·C·N) Σᵢ ‖ P(sᵢ) − tᵢ ‖²

s is the student's last map, t ∈ R^{B×C×N} the teacher's, with C channels and N = H·W locations, P a
projector of three convolutions, B the batch size. The larger map is average-pooled to the size of
the smaller, the student's before P. P and the teacher's frozen classifier stay in the student and
compute its logits: the method needs no labels, and as published uses none.

Differences from the released code: the last map is the one whose average enters the classifier,
even if the last stage ends before it (MobileNetV2, ShuffleNetV2); a teacher whose classifier reads
anything but the average of its last map is refused.
"""

from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.config.limits import Count
from understudy.errors import RecipeError, ShapeError
from understudy.features import Extendable, Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.layers.reused_head import LAST_MAP, Translator, is_average
from understudy.methods._maps import pool_to
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def simkd(
    projected: Float[Tensor, "batch channels h w"], teacher: Float[Tensor, "batch channels h_t w_t"]
) -> Float[Tensor, " batch"]:
    """Compute the squared error of each map, averaged over its elements."""
    target = pool_to(teacher, *projected.shape[2:])
    return (projected - target).square().mean((1, 2, 3))


@final
class SimKD(Method):
    """The student's last map, projected to match the teacher's, feeds the teacher's classifier.

    Published weight: 1, with weight 0 on the task loss.

    Args:
        student: Shapes of the student, after `extend` has replaced its head.
        teacher: Shapes of the teacher; needs a last map, and `logits` of the student's classes.
        factor: Ratio of the channels of the teacher's map to the inner channels of P.
    """

    published_weight: ClassVar[float] = 1.0
    reuses_classifier: ClassVar[bool] = True

    @classmethod
    def extend(
        cls, student: Extendable, teacher: Shapes, *, factor: Count = 2, **others: Any
    ) -> None:
        """Insert P after the student's last map, and replace the classifier by the teacher's."""
        classes = same_classes("simkd", student.shapes, teacher)
        (inputs, *size_s), (outputs, *size_t) = (_last_map(x) for x in (student.shapes, teacher))
        middle = outputs // _checked(factor, outputs)
        height, width = (min(pair) for pair in zip(size_s, size_t, strict=True))
        # A larger map of the student is pooled before P; a larger one of the teacher in the loss.
        layer = Translator(inputs, outputs, middle, (height, width))
        student.rehead(layer, nn.Linear(outputs, classes))

    def __init__(self, student: Shapes, teacher: Shapes, *, factor: Count = 2) -> None:
        super().__init__()
        same_classes("simkd", student, teacher)
        s, t = _last_map(student), _last_map(teacher)
        _checked(factor, t[0])
        fits = all(a <= b for a, b in zip(s, t, strict=True)) and s[0] == t[0]
        if not fits:
            raise ShapeError(
                f"simkd compares last maps of equal channels, but that of {student.owner} is "
                f"{s} and that of {teacher.owner} is {t}; call "
                "SimKD.extend(student, teacher.shapes) first, which gives the student a new head."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the last map; `prepare` also checks the penultimate."""
        return (LAST_MAP, "penultimate")

    @property
    def compares_classes(self) -> bool:
        """True: the student's classifier is the teacher's."""
        return True

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Check the teacher on one batch.

        Raises:
            ShapeError: The teacher's classifier does not read the average of its last map.
        """
        # A property of the architecture: one batch is enough.
        features, _ = next(iter(teacher.batches(augmented=False)))
        if not is_average(features["penultimate"].float(), features[LAST_MAP].float()):
            raise ShapeError(
                "simkd applies the teacher's classifier to the average of a map, but this "
                f"teacher's reads something else than the average of its {LAST_MAP!r}; use a "
                "teacher whose last layers are an average and a linear classifier."
            )

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        return batch_mean(simkd(student[LAST_MAP], teacher[LAST_MAP]))


def _last_map(shapes: Shapes) -> tuple[int, ...]:
    if LAST_MAP not in shapes or shapes.kind(LAST_MAP) != "map":
        raise ShapeError(
            f"simkd compares the last maps, but {shapes.owner} has no map {LAST_MAP!r}; use "
            "networks that end in a map, its average and a linear classifier."
        )
    return shapes[LAST_MAP]


def _checked(factor: int, channels: int) -> int:
    if not 1 <= factor <= channels:
        raise RecipeError(
            f"'factor' of simkd is {factor}; it must be from 1 to {channels}, the channels of the "
            "teacher's last map."
        )
    return factor
