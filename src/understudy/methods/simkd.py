"""Chen et al.: "Knowledge Distillation with the Reused Teacher Classifier".

CVPR 2022, arXiv 2203.14001; code: github.com/DefangChen/SimKD.

    L = 1/(B·C·N) Σᵢ ‖ P(sᵢ) − tᵢ ‖²

s is the student's last map, t ∈ R^{B×C×N} the teacher's, of C channels and N = H·W locations, P
three convolutions that lead from the one to the other, B the batch. The larger map is averaged down
to the smaller, the student's before P. P and the teacher's frozen classifier stay in the student
and give its logits: it needs no labels, and as published learns from none.

Where this departs from the released code: the last map is the one whose average enters the
classifier, also where another stage ends before it (MobileNetV2, ShuffleNetV2); a teacher whose
classifier reads more than the average of its last map is refused.
"""

from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from understudy.batch import Batch
from understudy.errors import RecipeError, ShapeError
from understudy.features import Extendable, Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.layers.reused_head import LAST_MAP, Translator, is_average
from understudy.methods._maps import shrink
from understudy.methods._method import Method
from understudy.methods._shapes import same_classes


def simkd(
    projected: Float[Tensor, "batch channels h w"], teacher: Float[Tensor, "batch channels h_t w_t"]
) -> Float[Tensor, " batch"]:
    """Squared error of each map, averaged over its elements."""
    target = shrink(teacher, *projected.shape[2:])
    return (projected - target).square().mean((1, 2, 3))


@final
class SimKD(Method):
    """The student's last map becomes the teacher's, and the teacher's classifier reads it.

    Published weight: 1, beside 0 on the labels.

    Args:
        student: Shapes of the student, with the head that `extend` gives it.
        teacher: Shapes of the teacher; needs a last map, and `logits` of the student's classes.
        factor: How many times fewer channels P has inside than the teacher's map.
    """

    published_weight: ClassVar[float] = 1.0

    @classmethod
    def extend(
        cls, student: Extendable, teacher: Shapes, *, factor: int = 2, **others: Any
    ) -> None:
        """Put P behind the student's last map, and a classifier of the teacher's width after it."""
        classes = same_classes("simkd", student.shapes, teacher)
        (inputs, *ours), (outputs, *theirs) = (_map(x) for x in (student.shapes, teacher))
        middle = outputs // _checked(factor, outputs)
        height, width = (min(pair) for pair in zip(ours, theirs, strict=True))
        layer = Translator(inputs, outputs, middle, (height, width))
        student.rehead(layer, nn.Linear(outputs, classes))

    def __init__(self, student: Shapes, teacher: Shapes, *, factor: int = 2) -> None:
        super().__init__()
        same_classes("simkd", student, teacher)
        ours, theirs = _map(student), _map(teacher)
        _checked(factor, theirs[0])
        fits = all(a <= b for a, b in zip(ours, theirs, strict=True)) and ours[0] == theirs[0]
        if not fits:
            raise ShapeError(
                f"simkd compares last maps of equal channels, but that of {student.owner} is "
                f"{ours} and that of {teacher.owner} is {theirs}; call "
                "SimKD.extend(student, teacher.shapes) first, which gives the student a new head."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The last map, and the vector that enters the classifier."""
        return (LAST_MAP, "penultimate")

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Look at one batch.

        Raises:
            ShapeError: The teacher's classifier does not read the average of its last map.
        """
        features, _ = next(iter(teacher.batches(augmented=False)))
        if not is_average(features["penultimate"].float(), features[LAST_MAP].float()):
            raise ShapeError(
                "simkd lets the teacher's classifier read the average of a map, but this teacher's "
                f"reads something else than the average of its {LAST_MAP!r}; use a teacher whose "
                "last layers are an average and a linear classifier."
            )

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss; labels are not used."""
        return batch_mean(simkd(student[LAST_MAP], teacher[LAST_MAP]))


def _map(shapes: Shapes) -> tuple[int, ...]:
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
