"""Ranzinger et al.: "AM-RADIO: Agglomerative Vision Foundation Model", arXiv 2312.06709.

    L      = L_sum + λ L_spat
    L_sum  = 1/B Σᵢ 1 − cos(sᵢ, tᵢ)
    L_spat = 1/(B·N) Σᵢₘ ‖ pᵢₘ − yᵢₘ ‖² / D                              spatial="mse"
    L_spat = 1/(B·N) Σᵢₘ α (1 − cos(pᵢₘ, yᵢₘ)) + β SL1(pᵢₘ, yᵢₘ)         spatial="cosine_l1"

s and t are the summaries of student and teacher, p the student's N patches, resized bilinearly to
the teacher's grid, and y the teacher's; the student's pass adaptors of two layers. SL1 is the mean
over the D dimensions of the smooth L1 distance. B is the batch size. Nothing of it needs labels.

The default is the later form: y is standardised by PHI-S (arXiv 2410.01680), one rotation and one
number, so that all dimensions have variance 1 (`methods/_standardise.py`), and compared by the
squared error. The form of AM-RADIO itself is `standardise: none`, `spatial: cosine_l1`, with
α = 0.9 and β = 0.1. The teacher's summary is compared as it is.

The authors' training code is not published. Not stated, and chosen here: the threshold of SL1 (1),
and the adaptors' form, which is linear, LayerNorm, GELU, linear.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Count, NonNegative, Positive
from understudy.features import Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.methods._method import Method
from understudy.methods._projectors import resize
from understudy.methods._standardise import Kind, Standardiser, measure
from understudy.methods._tokens import (
    check_same_images,
    cosine_and_l1,
    head,
    one_minus_cosine,
    patch_maps,
    per_position,
    summaries,
    tokens,
)
from understudy.methods.dense_mse import dense_mse

Spatial = Literal["mse", "cosine_l1"]


def cosine_l1(
    student: Float[Tensor, "batch tokens dim"],
    teacher: Float[Tensor, "batch tokens dim"],
    alpha: NonNegative = 0.9,
    beta: NonNegative = 0.1,
    threshold: Positive = 1.0,
) -> Float[Tensor, " batch"]:
    """Compute α (1 − cos) + β SL1 of each token, averaged over an image's tokens."""
    return cosine_and_l1(student, teacher, alpha, beta, threshold).mean(1)


def radio(
    summary: Float[Tensor, " batch"], spatial: Float[Tensor, " batch"], spatial_weight: NonNegative
) -> Float[Tensor, " batch"]:
    """Return L_sum + λ L_spat of each image."""
    return summary + spatial_weight * spatial


@final
class RADIO(Method):
    """Agglomerative: adaptors on the student predict a foundation model's summary and patches.

    Published weight: 1, alone.

    Args:
        student: Shapes of the student; needs the vector `penultimate` (or `cls`), and a map or a
            grid of tokens.
        teacher: Shapes of the teacher; needs the same.
        spatial_weight: λ.
        spatial: Form of L_spat.
        alpha: α of `cosine_l1`.
        beta: β of `cosine_l1`.
        threshold: Distance from which SL1 is linear.
        standardise: Standardisation of the teacher's patches: `none`; `unit` length of each;
            `frozen` mean 0 and deviation 1 of each dimension, over the training images; `ema`, the
            same of the latest batches; `phi_s`, one rotation and one number for all dimensions.
        hidden: Width of the adaptors; default: the teacher's.
        summary: Vectors to compare, such as `penultimate:cls`, the student's first; default:
            `penultimate` of the student, and of a teacher without `cls`.
        patches: Maps to compare, such as `stage4:patches`; default: `patches` of a network that
            names it, else its last stage.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        spatial_weight: NonNegative = 1.0,
        spatial: Spatial = "mse",
        alpha: NonNegative = 0.9,
        beta: NonNegative = 0.1,
        threshold: Positive = 1.0,
        standardise: Kind = "phi_s",
        hidden: Count | None = None,
        summary: str = "",
        patches: str = "",
    ) -> None:
        super().__init__(student, teacher)
        self.spatial_weight, self.spatial = spatial_weight, spatial
        self.alpha, self.beta, self.threshold = alpha, beta, threshold
        self.summary = summaries(student, teacher, summary)
        self.patches = patch_maps(student, teacher, patches)
        self.summary_adaptor, self.patch_adaptor = (
            head(
                student.width(s),
                teacher.width(t),
                layers=2,
                hidden=teacher.width(t) if hidden is None else hidden,
                zero_bias=True,
            )
            for s, t in (self.summary, self.patches)
        )
        self.standardiser = Standardiser(standardise, teacher.width(self.patches[1]))
        self.prepared = not self.standardiser.measures

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the summary and the patches."""
        return (self.summary[1], self.patches[1])

    def projected(self, student: Features) -> Features:
        """Return the outputs of the adaptors, in the teacher's own scale."""
        p = per_position(self.patch_adaptor, self.student_as_map(student, self.patches[0]))
        return {
            self.summary[1]: self.summary_adaptor(student[self.summary[0]]),
            self.patches[1]: self.standardiser.restore(tokens(p)).mT.reshape_as(p),
        }

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Measure the statistics of the teacher's patches."""
        measure({self.patches[1]: self.standardiser}, teacher, self.teacher_as_map)
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are not used."""
        s = self.summary_adaptor(student[self.summary[0]])
        t = self.teacher_as_map(teacher, self.patches[1])
        check_same_images("radio", s, t, "use theia or dense_mse, which compare maps alone")
        p = resize(self.student_as_map(student, self.patches[0]), t.shape[2:])
        p = self.patch_adaptor(tokens(p))
        angles = one_minus_cosine(s, teacher[self.summary[1]])
        y = self.standardiser(tokens(t))
        return batch_mean(radio(angles, self._spatial(p, y), self.spatial_weight))

    def _spatial(self, p: Tensor, y: Tensor) -> Float[Tensor, " batch"]:
        if self.spatial == "mse":
            return dense_mse(p, y)
        return cosine_l1(p, y, self.alpha, self.beta, self.threshold)
