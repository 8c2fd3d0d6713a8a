"""Gorgun, Gurbuz & Alatan: "Knowledge Distillation Layer that Lets the Student Decide".

BMVC 2023, arXiv 2309.02843; code: github.com/adagorgun/letKD-framework.

    L       = L_pen + L_int,      L_place = 1/(B·H·W) Σᵢ Σₖ pᵀₖᵢ ( log pᵀₖᵢ − log pˢₖᵢ )
    pˢᵢ     = softmax( aᵢ ),      aₖᵢ = s₁ cos( xᵢ, ωₖ )
    pᵀᵢ     = softmax( −τ ‖fᵢ − ρₖ‖² )                   at the penultimate map
    pᵀᵢ     = T[ h(zᵢ, y), · ]                           after the first block of the last stage

x is a map of the student, i one of its B·H·W locations, ω the templates of a KD layer, which stays
in the student and adds to x a residual computed from the scores a (`layers/kd_layer.py`). f and z
are the teacher's maps at the same places, ρ the K words of its codebook: k-means centres of all
locations of all training images. T is the decision matrix of the S sub-classes: T[s, r] is the
share of the locations of sub-class s whose nearest prototype is that of r, and h(z, y) the
sub-class of label y whose centre is nearest to z, along the axes of a linear discriminant analysis.

letKD-1 is `places="penultimate"`, letKD-2 `places="both"`. With `alpha=0` nothing is added to the
map, and letKD-1 is QuEST: Jain et al., "Quest: Quantized embedding space for transferring
knowledge", ECCV 2020. `supervised=False` is the control for capacity: the same layers, no teacher.

Differences from the released code:
- If the output depends only on the spatial mean of the penultimate map, the layer there adds the
  mean of its residual instead of the residual at each location, which gives the same logits.
- The codebook is computed by k-means on growing samples of the images (`_letkd/kmeans.py`); words
  and sub-classes that are nearest to no training location have probability 0.
- The sub-class is always one of the image's label; the code, by a masked maximum, can return one of
  another class if there is one sub-class per class.
- An image without label takes the teacher's predicted class, if the teacher has logits of the
  student's classes; else the loss at the intermediate place leaves it out.
- A teacher's map of any other size is average-pooled to the student's, not only one twice as large;
  of a smaller one, positions are repeated.
- In a transformer of one resolution, the map is the grid of patches after a block: the last one
  whose patches reach the output, and the first of the last quarter. Class tokens and registers are
  left unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, final

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.batch import Batch
from understudy.config.limits import Count, NonNegative, PathText, Positive
from understudy.errors import ShapeError
from understudy.features import Extendable, Features, Shapes, TeacherOutputs
from understudy.files import refuse_address
from understudy.functional import batch_mean
from understudy.layers.kd_layer import KDLayer
from understudy.methods._letkd.measure import CodebookPlan, Plan, SubclassPlan, measure
from understudy.methods._logits import labels_or_predictions
from understudy.methods._maps import pool_to
from understudy.methods._method import Method
from understudy.methods._projectors import map_shape

LayerPlaces = Literal["both", "penultimate", "intermediate"]
"""Where KD layers are inserted."""

SCORES = {"penultimate": "letkd/penultimate", "intermediate": "letkd/intermediate"}
"""Place → the student's feature that holds the scores of its templates."""
UNUSED_SCORE = -1e30
"""Score of a word that is nearest to no location: its probability is exactly 0."""


def divergence(
    scores: Float[Tensor, "batch words h w"], target: Float[Tensor, "batch words h w"]
) -> Float[Tensor, " batch"]:
    """Compute KL(target ‖ softmax(scores)) over the words, averaged over each image's locations."""
    # Not from log-softmax: like this only target and scores are stored for the backward pass.
    negative_entropy = torch.xlogy(target, target).sum(1)
    cross_entropy = target.sum(1) * scores.logsumexp(1) - (target * scores).sum(1)
    return (negative_entropy + cross_entropy).flatten(1).mean(1)


def word_probabilities(
    teacher: Float[Tensor, "batch dim h w"],
    words: Float[Tensor, "words dim"],
    temperature: float,
    used: Bool[Tensor, " words"] | None = None,
) -> Float[Tensor, "batch words h w"]:
    """Compute softmax(−τ ‖f − ρ‖²) over the words, or over those `used`.

    Distances are in the hundreds and differ by little, so that TF32 would change the result: if it
    is on, they are computed in float64.
    """
    dtype = torch.float64 if _float32_products_rounded() else teacher.dtype
    f, rho = teacher.flatten(2).to(dtype), words.to(dtype)
    # −τ ‖f − ρ‖² = 2τ ⟨f, ρ⟩ − τ ‖ρ‖² − τ ‖f‖², the last of which is the same for all words.
    bias = -temperature * rho.square().sum(1)
    if used is not None:
        bias = torch.where(used, bias, UNUSED_SCORE)
    bias, rho = bias[None, :, None], rho.expand(len(f), -1, -1)
    scores = torch.baddbmm(bias, rho, f, alpha=2 * temperature)
    return scores.softmax(1).to(teacher.dtype).view(len(f), len(words), *teacher.shape[2:])


# `torch.compile` cannot trace the query; the setting does not change during a run.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _float32_products_rounded() -> bool:
    """Return True if products of float32 matrices are rounded, as by TF32."""
    return torch.get_float32_matmul_precision() != "highest"


def own_subclass(
    z: Float[Tensor, "batch dims h w"],
    classes: Int[Tensor, " batch"],
    centers: Float[Tensor, "classes count dims"],
) -> Int[Tensor, "batch h w"]:
    """Compute h(z, y): index of the image's own sub-class whose centre is nearest."""
    own = centers[classes]
    # ‖z − c‖² without ‖z‖², which is the same for all centres.
    distances = own.square().sum(2, keepdim=True) - 2 * own @ z.flatten(2)
    nearest = distances.argmin(1) + classes[:, None] * centers.shape[1]
    return nearest.view(len(z), *z.shape[2:])


@final
class LetKD(Method):
    """KD layers: the student predicts the teacher's word at each location, and learns to use it.

    Published weight: 1, with weight 1 on the task loss.

    Args:
        student: Shapes of the student, with the layers that `extend` inserts.
        teacher: Shapes of the teacher; needs maps, or grids of tokens, at the same places.
        places: Where KD layers are inserted: `penultimate` is letKD-1, `both` letKD-2.
        words: K, size of the codebook.
        subclasses: Sub-classes per class.
        dims: Number of discriminant axes, at most classes − 1. Published: 60 for CIFAR-100, 8 for
            CIFAR-10.
        temperature: τ; its effect depends on the scale of the teacher's features.
        alpha: α at the penultimate map; 0 adds nothing (QuEST).
        alpha_intermediate: α at the intermediate place.
        supervised: Whether the teacher supervises the layers; False is the control for capacity.
        penultimate: Name of the map of both networks that is pooled.
        intermediate: Name of the map of both networks after the first block of the last stage.
        iterations: Iterations of k-means.
        keep: Folder that stores the codebook and sub-classes of the teacher, to reuse them in other
            runs and to resume an interrupted measurement; default: none. During the measurement it
            also holds the teacher's maps, two bytes per number.
    """

    published_weight: ClassVar[float] = 1.0
    requires_softmax: ClassVar[bool] = True
    requires_hard_labels: ClassVar[bool] = True
    words: Float[Tensor, "words dim"]
    word_counts: Int[Tensor, " words"]
    axes: Float[Tensor, "dim dims"]
    axes_mean: Float[Tensor, " dim"]
    centers: Float[Tensor, "subclasses dims"]
    decisions: Float[Tensor, "subclasses subclasses"]

    @classmethod
    def extend(
        cls,
        student: Extendable,
        teacher: Shapes,
        *,
        places: LayerPlaces = "both",
        words: Count = 4096,
        subclasses: Count = 8,
        alpha: NonNegative = 1.0,
        alpha_intermediate: NonNegative = 1.0,
        penultimate: str = "penultimate/map",
        intermediate: str = "last_stage/first",
        **others: Any,
    ) -> None:
        """Insert the KD layers."""
        # The intermediate one first, as the penultimate one may come directly after it.
        counts = {"penultimate": words, "intermediate": 0}
        if places != "penultimate":
            counts["intermediate"] = subclasses * _classes(student.shapes, teacher)
        strengths = {"penultimate": alpha, "intermediate": alpha_intermediate}
        features = {"penultimate": penultimate, "intermediate": intermediate}
        for place in _names(places):
            if SCORES[place] in student.shapes:
                raise ShapeError(
                    f"{student.shapes.owner} has a KD layer at its {place} place already, where "
                    "there is room for one: leave one letkd out, or of two teachers set places to "
                    "penultimate for one and to intermediate for the other."
                )
            feature = features[place]
            channels = map_shape(student.shapes, feature)[0]
            averaged = place == "penultimate" and student.depends_only_on_mean(feature)
            layer = KDLayer(channels, counts[place], alpha=strengths[place],
                            averaged=averaged)  # fmt: skip
            student.insert(feature, layer, {SCORES[place]: "score"})

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        places: LayerPlaces = "both",
        words: Count = 4096,
        subclasses: Count = 8,
        dims: Count = 60,
        temperature: Positive = 1.0,
        alpha: NonNegative = 1.0,
        alpha_intermediate: NonNegative = 1.0,
        supervised: bool = True,
        penultimate: str = "penultimate/map",
        intermediate: str = "last_stage/first",
        iterations: Count = 20,
        keep: PathText = "",
    ) -> None:
        super().__init__(student, teacher)
        features = {"penultimate": penultimate, "intermediate": intermediate}
        self.features = {place: features[place] for place in _names(places)}
        self.temperature, self.supervised, self.keep = temperature, supervised, keep
        grids = {
            place: _pooled_shape(student, teacher, SCORES[place], feature)
            for place, feature in self.features.items()
        }
        self.plans: dict[str, Plan] = {}
        self.predicts_labels = False
        if "penultimate" in grids:
            self._add_codebook(CodebookPlan(words, iterations, grids["penultimate"]))
        if "intermediate" in grids:
            classes = _classes(student, teacher)
            self.predicts_labels = "logits" in teacher and teacher.vector("logits") == classes
            dims = min(dims, grids["intermediate"][0])
            self._add_subclasses(
                SubclassPlan(subclasses, dims, classes, iterations, grids["intermediate"])
            )
        self.prepared = not supervised

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: maps, and logits if they replace missing labels."""
        if not self.supervised:
            return ()
        return (*self.features.values(), *(("logits",) if self.predicts_labels else ()))

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Compute the teacher's words, sub-classes and decisions on the clean training images.

        Raises:
            BankError: `keep` holds measurements of another teacher or of other images.
            ShapeError: No training image has a known class.
        """
        if not self.supervised:
            return
        with _folder(self.keep) as folder:
            device = next(self.buffers()).device
            tensors = measure(teacher, folder, self.plans, self._maps, self._classes, device)
        # Every buffer has the name of a measured tensor.
        for name, buffer in self.named_buffers():
            buffer.copy_(tensors[name])
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss, the sum over the places; 0 without supervision."""
        return torch.stack(list(self.losses(student, teacher, batch).values())).sum()

    def losses(self, student: Features, teacher: Features, batch: Batch) -> Features:
        """Return place → mean divergence."""
        if not self.supervised:
            return {place: 0 * student[SCORES[place]].sum() for place in self.features}
        return {
            place: batch_mean(divergence(student[SCORES[place]], target), known)
            for place, target, known in self.targets(student, teacher, batch)
        }

    def targets(
        self, student: Features, teacher: Features, batch: Batch
    ) -> Iterator[tuple[str, Float[Tensor, "batch words h w"], Bool[Tensor, " batch"] | None]]:
        """Yield for each place its name, pᵀ, and which images have a target (None for all)."""
        for place, t in self._maps(teacher, student).items():
            if place == "penultimate":
                used = self.word_counts > 0
                yield place, word_probabilities(t, self.words, self.temperature, used), None
            else:
                classes = self._classes(teacher, batch)
                # A class that is not known is replaced by 0, and its image is masked.
                yield place, self.decision_rows(t, classes.clamp_min(0)), classes >= 0

    def decision_rows(
        self, teacher: Float[Tensor, "batch dim h w"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch subclasses h w"]:
        """Return T[h(z, y), ·] for every location; all classes must be known."""
        rows = (teacher.flatten(2).mT - self.axes_mean) @ self.axes
        z = rows.mT.reshape(len(rows), self.axes.shape[1], *teacher.shape[2:])
        centers = self.centers.view(-1, self.plans["intermediate"].count, z.shape[1])
        index = own_subclass(z, classes, centers)
        return self.decisions[index].permute(0, 3, 1, 2)

    def _add_codebook(self, plan: CodebookPlan) -> None:
        self.plans["penultimate"] = plan
        self.register_buffer("words", torch.zeros(plan.count, plan.map[0]))
        # Training locations nearest to each word; words without any are left out of the softmax.
        self.register_buffer("word_counts", torch.zeros(plan.count, dtype=torch.long))

    def _add_subclasses(self, plan: SubclassPlan) -> None:
        self.plans["intermediate"] = plan
        total, dim = plan.classes * plan.count, plan.map[0]
        self.register_buffer("axes", torch.zeros(dim, plan.dims))
        self.register_buffer("axes_mean", torch.zeros(dim))
        self.register_buffer("centers", torch.zeros(total, plan.dims))
        self.register_buffer("decisions", torch.zeros(total, total))

    def _maps(self, teacher: Features, student: Features | None = None) -> Features:
        """Return place → the teacher's map, average-pooled to the size of the student's.

        Without the student's features, the size is that of its shapes.
        """
        maps = {}
        for place, feature in self.features.items():
            shape = self.plans[place].map if student is None else student[SCORES[place]].shape
            maps[place] = pool_to(self.teacher_as_map(teacher, feature), shape[-2], shape[-1])
        return maps

    def _classes(self, teacher: Features, batch: Batch) -> Int[Tensor, " batch"]:
        if not self.predicts_labels:
            return batch.labels
        return labels_or_predictions(batch.labels, teacher)


def _names(places: LayerPlaces) -> tuple[str, ...]:
    return ("intermediate", "penultimate") if places == "both" else (places,)


def _classes(student: Shapes, teacher: Shapes) -> int:
    for shapes in (student, teacher):
        if "logits" in shapes:
            return shapes.vector("logits")
    raise ShapeError(
        f"letkd splits classes at its intermediate place, but neither {student.owner} nor "
        f"{teacher.owner} has logits; set places to penultimate."
    )


def _pooled_shape(student: Shapes, teacher: Shapes, scores: str, feature: str) -> tuple[int, ...]:
    """Return the shape of the teacher's map after pooling to the student's size."""
    if scores not in student:
        raise ShapeError(
            f"{student.owner} has no KD layer at {feature!r}; call LetKD.extend(student, "
            "teacher.shapes) with the same hyper-parameters first."
        )
    return map_shape(teacher, feature)[0], *map_shape(student, scores)[1:]


@contextmanager
def _folder(keep: str) -> Iterator[Path]:
    """Return the folder to measure in: `keep`, or a temporary one; each process has its own."""
    refuse_address(keep, "keep")
    if not keep:
        with TemporaryDirectory(prefix="understudy-letkd-") as temporary:
            yield Path(temporary)
        return
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    yield Path(keep) / f"process{rank}" if rank else Path(keep)
