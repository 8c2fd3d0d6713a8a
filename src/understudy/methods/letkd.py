"""Gorgun, Gurbuz & Alatan: "Knowledge Distillation Layer that Lets the Student Decide".

BMVC 2023, arXiv 2309.02843; code: github.com/adagorgun/letKD-framework.

    L       = L_pen + L_int,      L_place = 1/(B·H·W) Σᵢ Σₖ pᵀₖᵢ ( log pᵀₖᵢ − log pˢₖᵢ )
    pˢᵢ     = softmax( aᵢ ),      aₖᵢ = s₁ cos( xᵢ, ωₖ )
    pᵀᵢ     = softmax( −τ ‖fᵢ − ρₖ‖² )                   at the penultimate map
    pᵀᵢ     = T[ h(zᵢ, y), · ]                           after the first block of the last stage

x is a map of the student, i one of its B·H·W locations, ω the templates of a KD layer that stays in
the student and adds to x what its matched templates mean (`layers.py`). f and z are the
maps of the teacher at the same places, ρ its K words: the centres of all locations of all training
images. T is the decision matrix of the S sub-classes: T[s, r] is the share of the locations of
sub-class s that lie nearest to the prototype of r, and h(z, y) the sub-class among those of the
label y whose centre is nearest to z, along the axes of a linear discriminant analysis.

letKD-1 is `places="penultimate"`, letKD-2 `places="both"`. With `alpha=0` nothing is added to the
map, and letKD-1 is QuEST: Jain et al., "Quest: Quantized embedding space for transferring
knowledge", ECCV 2020. `supervised=False` is the control of capacity: the same layers, no teacher.

Where this departs from the released code:
- The layer at the penultimate map adds the mean over the map of what it would add at each location
  wherever only the mean matters afterwards, which gives the same logits.
- The codebook comes from k-means on growing samples of the images (`_kmeans.py`); words and
  sub-classes that no training location is nearest to have probability 0.
- The sub-class is the nearest of its label's; the code, by a masked maximum, can return another
  class's where there is one sub-class a class.
- An image without label counts for the class that the teacher sees in it, as long as the teacher
  tells the student's classes apart; else the intermediate place does not learn from it.
- A teacher's map larger than the student's by any whole factor is averaged, not only by two.
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
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.errors import ShapeError
from understudy.features import Extendable, Features, Shapes, TeacherOutputs
from understudy.functional import batch_mean
from understudy.layers.kd_layer import KDLayer
from understudy.methods._letkd.measure import Plan, Subclasses, Words, measure
from understudy.methods._method import Method
from understudy.methods._projectors import as_map, map_shape

Places = Literal["both", "penultimate", "intermediate"]

SCORES = {"penultimate": "letkd/penultimate", "intermediate": "letkd/intermediate"}
"""Place → the student's feature that holds the scores of its templates."""
SILENT = -1e30
"""Score of a word that no location is nearest to: its probability is exactly 0."""


def divergence(
    scores: Float[Tensor, "batch words h w"], target: Float[Tensor, "batch words h w"]
) -> Float[Tensor, " batch"]:
    """KL(target ‖ softmax(scores)) over the words, averaged over the locations of each image.

    Written so that of all tensors of this size only the target is kept for the backward pass.
    """
    entropy = torch.xlogy(target, target).sum(1)
    cross = target.sum(1) * scores.logsumexp(1) - (target * scores).sum(1)
    return (entropy + cross).flatten(1).mean(1)


def word_probabilities(
    teacher: Float[Tensor, "batch dim h w"],
    words: Float[Tensor, "words dim"],
    temperature: float,
    heard: Tensor | None = None,
) -> Float[Tensor, "batch words h w"]:
    """softmax(−τ ‖f − ρ‖²) over the words, those not `heard` left out.

    ‖f‖² is the same for all words and left out as well. Distances are in the hundreds and differ
    by little, so that TF32 would change the result: where it is on, they are in float64.
    """
    full = torch.float64 if _shortened() else teacher.dtype
    f, rho = teacher.flatten(2).to(full), words.to(full)
    lengths = -temperature * rho.square().sum(1)
    if heard is not None:
        lengths = torch.where(heard, lengths, SILENT)
    bias, rho = lengths[None, :, None], rho.expand(len(f), -1, -1)
    scores = torch.baddbmm(bias, rho, f, alpha=2 * temperature)
    return scores.softmax(1).to(teacher.dtype).view(len(f), len(words), *teacher.shape[2:])


# A compiled graph does not ask again, and cannot ask at all without this promise.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _shortened() -> bool:
    """Whether products of float32 matrices are rounded, as by TF32."""
    return torch.get_float32_matmul_precision() != "highest"


def own_subclass(
    z: Float[Tensor, "batch dims h w"],
    classes: Int[Tensor, " batch"],
    centers: Float[Tensor, "classes count dims"],
) -> Int[Tensor, "batch h w"]:
    """h(z, y): number of the sub-class, among those of the class, whose centre is nearest."""
    own = centers[classes]
    distances = own.square().sum(2, keepdim=True) - 2 * own @ z.flatten(2)
    nearest = distances.argmin(1) + classes[:, None] * centers.shape[1]
    return nearest.view(len(z), *z.shape[2:])


@final
class LetKD(Method):
    """KD layers: the student is told which word of the teacher is where, and decides what it means.

    Published weight: 1, beside 1 on the labels.

    Args:
        student: Shapes of the student, with the layers that `extend` puts in.
        teacher: Shapes of the teacher; needs maps at the same places, as large as the student's or
            larger by a whole factor.
        places: `penultimate` is letKD-1, `both` letKD-2.
        words: K, the size of the codebook.
        subclasses: Sub-classes of each class.
        dims: Discriminant axes that are used; there are one less than classes. Published: 60 for
            CIFAR-100, 8 for CIFAR-10.
        temperature: τ; how soft the words are hangs on the scale of the teacher's features.
        alpha: α at the penultimate map; 0 adds nothing (QuEST).
        alpha_intermediate: α at the intermediate place.
        supervised: Whether the teacher supervises the layers; False is the control of capacity.
        penultimate: The map of both networks that is pooled.
        intermediate: The map of both networks after the first block of the last stage.
        iterations: Of k-means.
        keep: Folder that keeps what is measured of the teacher, for other runs with it, and to go
            on where an interrupted measurement stopped; default: none. While measuring it holds two
            bytes for each number of the maps.
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
        places: Places = "both",
        words: int = 4096,
        subclasses: int = 8,
        alpha: float = 1.0,
        alpha_intermediate: float = 1.0,
        penultimate: str = "penultimate/map",
        intermediate: str = "last_stage/first",
        **others: Any,
    ) -> None:
        """Put the layers in: first the intermediate one, which the other may follow directly."""
        counts = {"penultimate": words, "intermediate": 0}
        if places != "penultimate":
            counts["intermediate"] = subclasses * _classes(student.shapes, teacher)
        strengths = {"penultimate": alpha, "intermediate": alpha_intermediate}
        features = {"penultimate": penultimate, "intermediate": intermediate}
        for place in _names(places):
            if SCORES[place] in student.shapes:
                raise ShapeError(
                    f"{student.shapes.owner} has a KD layer for {SCORES[place]!r} already; one "
                    "student takes the layers of one letkd."
                )
            feature = features[place]
            averaged = place == "penultimate" and student.depends_only_on_mean(feature)
            layer = KDLayer(student.shapes[feature][0], counts[place], alpha=strengths[place],
                            averaged=averaged)  # fmt: skip
            student.insert(feature, layer, {SCORES[place]: "score"})

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        places: Places = "both",
        words: int = 4096,
        subclasses: int = 8,
        dims: int = 60,
        temperature: float = 1.0,
        alpha: float = 1.0,
        alpha_intermediate: float = 1.0,
        supervised: bool = True,
        penultimate: str = "penultimate/map",
        intermediate: str = "last_stage/first",
        iterations: int = 20,
        keep: str = "",
    ) -> None:
        super().__init__()
        features = {"penultimate": penultimate, "intermediate": intermediate}
        self.features = {place: features[place] for place in _names(places)}
        self.temperature, self.supervised, self.keep = temperature, supervised, keep
        grids = {
            place: _met(student, teacher, SCORES[place], feature)
            for place, feature in self.features.items()
        }
        self.plans: dict[str, Plan] = {}
        self.guesses = False
        if "penultimate" in grids:
            self._prepare_words(Words(words, iterations, grids["penultimate"]))
        if "intermediate" in grids:
            classes = _classes(student, teacher)
            self.guesses = "logits" in teacher and teacher.vector("logits") == classes
            dims = min(dims, grids["intermediate"][0])
            self._prepare_subclasses(
                Subclasses(subclasses, dims, classes, iterations, grids["intermediate"])
            )
        self.prepared = not supervised

    @property
    def reads(self) -> tuple[str, ...]:
        """The teacher's maps, and logits for images without label; nothing without supervision."""
        if not self.supervised:
            return ()
        return (*self.features.values(), *(("logits",) if self.guesses else ()))

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Find the teacher's words, sub-classes and decisions on the clean training images.

        Raises:
            BankError: `keep` holds what was measured of another teacher or other images.
            ShapeError: The class of no training image is known.
        """
        if not self.supervised:
            return
        with _folder(self.keep) as folder:
            device = next(self.buffers()).device
            found = measure(teacher, folder, self.plans, self._maps, self._known, device)
        for name, buffer in self.named_buffers():
            buffer.copy_(found[name])
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """The unweighted loss: the divergence at every place, added; 0 without supervision."""
        return torch.stack(list(self.parts(student, teacher, batch).values())).sum()

    def parts(self, student: Features, teacher: Features, batch: Batch) -> Features:
        """The divergence at each place."""
        if not self.supervised:
            return {place: 0 * student[SCORES[place]].sum() for place in self.features}
        return {
            place: batch_mean(divergence(student[SCORES[place]], target), known)
            for place, target, known in self.targets(student, teacher, batch)
        }

    def targets(
        self, student: Features, teacher: Features, batch: Batch
    ) -> Iterator[tuple[str, Float[Tensor, "batch words h w"], Bool[Tensor, " batch"] | None]]:
        """At each place: what the teacher says of the words there, and of which images it can."""
        for place, t in self._maps(teacher, student).items():
            if place == "penultimate":
                heard = self.word_counts > 0
                yield place, word_probabilities(t, self.words, self.temperature, heard), None
            else:
                classes = self._known(teacher, batch)
                yield place, self.decided(t, classes.clamp_min(0)), classes >= 0

    def decided(
        self, teacher: Float[Tensor, "batch dim h w"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch subclasses h w"]:
        """Rows of the decision matrix for every location of images of known classes."""
        rows = (teacher.flatten(2).mT - self.axes_mean) @ self.axes
        z = rows.mT.reshape(len(rows), self.axes.shape[1], *teacher.shape[2:])
        centers = self.centers.view(-1, self.plans["intermediate"].count, z.shape[1])
        index = own_subclass(z, classes, centers)
        return self.decisions[index].permute(0, 3, 1, 2)

    def _prepare_words(self, plan: Words) -> None:
        self.plans["penultimate"] = plan
        self.register_buffer("words", torch.zeros(plan.count, plan.map[0]))
        self.register_buffer("word_counts", torch.zeros(plan.count, dtype=torch.long))

    def _prepare_subclasses(self, plan: Subclasses) -> None:
        self.plans["intermediate"] = plan
        total, dim = plan.classes * plan.count, plan.map[0]
        self.register_buffer("axes", torch.zeros(dim, plan.dims))
        self.register_buffer("axes_mean", torch.zeros(dim))
        self.register_buffer("centers", torch.zeros(total, plan.dims))
        self.register_buffer("decisions", torch.zeros(total, total))

    def _maps(self, teacher: Features, student: Features | None = None) -> Features:
        """The teacher's map at each place, averaged to the size of the student's."""
        found = {}
        for place, feature in self.features.items():
            like = self.plans[place].map if student is None else student[SCORES[place]].shape
            found[place] = _fitted(as_map(teacher[feature]), like[-2], like[-1])
        return found

    def _known(self, teacher: Features, batch: Batch) -> Int[Tensor, " batch"]:
        """The label of each image, or the teacher's prediction where it has none."""
        if not self.guesses:
            return batch.labels
        return torch.where(batch.labels == UNLABELLED, teacher["logits"].argmax(1), batch.labels)


def _names(places: Places) -> tuple[str, ...]:
    return ("intermediate", "penultimate") if places == "both" else (places,)


def _classes(student: Shapes, teacher: Shapes) -> int:
    for shapes in (student, teacher):
        if "logits" in shapes:
            return shapes.vector("logits")
    raise ShapeError(
        f"letkd splits classes at its intermediate place, but neither {student.owner} nor "
        f"{teacher.owner} has logits; set places to penultimate."
    )


def _met(student: Shapes, teacher: Shapes, scores: str, feature: str) -> tuple[int, ...]:
    """Shape of the teacher's map once it is as large as the student's."""
    if scores not in student:
        raise ShapeError(
            f"{student.owner} has no KD layer at {feature!r}; call LetKD.extend(student, "
            "teacher.shapes) with the same hyper-parameters first."
        )
    (_, *ours), (dim, *theirs) = map_shape(student, scores), map_shape(teacher, feature)
    if any(b % a for a, b in zip(ours, theirs, strict=True)):
        raise ShapeError(
            f"{feature!r} is {tuple(ours)} in {student.owner} and {tuple(theirs)} in "
            f"{teacher.owner}; letkd averages the teacher's map to the student's, which takes a "
            "whole factor: show the teacher larger images, or name another map by a tap."
        )
    return dim, *ours


def _fitted(t: Tensor, height: int, width: int) -> Float[Tensor, "batch dim height width"]:
    same = t.shape[2] == height and t.shape[3] == width
    return t if same else F.adaptive_avg_pool2d(t, (height, width))


@contextmanager
def _folder(keep: str) -> Iterator[Path]:
    """Where to measure: each process of several in a folder of its own."""
    if not keep:
        with TemporaryDirectory(prefix="understudy-letkd-") as temporary:
            yield Path(temporary)
        return
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    yield Path(keep) / f"process{rank}" if rank else Path(keep)
