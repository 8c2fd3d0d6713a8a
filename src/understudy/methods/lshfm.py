"""Wang, Ge, Wu: "Distilling Knowledge by Mimicking Features", TPAMI 44(11), 2022, arXiv 2011.01424.

    L      = L_lsh + L_mse
    L_lsh  = 1/(B·N) Σᵢⱼ [ softplus(aˢᵢⱼ) − hᵢⱼ aˢᵢⱼ ],   aˢ = f_s Wᵀ + b,  h = 1[ f_t Wᵀ + b > 0 ]
    L_mse  = 1/(B·D) Σᵢ ‖ f_s,i − f_t,i ‖²

f_s, f_t ∈ R^{B×D} are the penultimate features of student and teacher, W ∈ R^{N×D} fixed random
directions with entries from N(0, σ²), b ∈ R^N fixed offsets, B the batch size. L_lsh pulls the
student's feature to the teacher's side of every random hyperplane, that is, to its direction; L_mse
anchors the norm. The selective form (default, as published) averages over the images that the
teacher classifies correctly. If the dimensions differ, the student gets a linear embedding layer
before its classifier; it stays, and is folded into the classifier when the student is exported.

The published alignment is a separate, earlier run: `task_weight: 0`,
`training.only: ["*.embedding.*"]`, `embed: always`; the next run starts from its folder `last`,
where the layer is not folded yet.

L_lsh alone (`terms="lsh"`) has no finite minimum: once a feature points in the teacher's direction,
the loss decreases forever as ‖f_s‖ grows. In a dense detector, whose task loss sums over all
anchors, gradients grow with the features until one step overflows: the NaN that the authors report
for RetinaNet. `training.clip: 10` keeps it finite and lets it learn.

Code of the authors: github.com/DoctorKey/LSHFM.singleclassification, LSHFM.multiclassification and
LSHFM.detection.

Differences from the released code:
- A batch without any correctly classified image has loss 0 and gradient zero; the code has NaN. An
  image without label is kept, as the teacher may be right about it.
- `prepare` may be called again; the second call of the code's initialiser sets the offsets to 0.
- Offsets are computed from the images seen; if the loader drops the last batch, the code counts the
  images it never saw as zeros. Medians are computed in chunks, without the code's n×N table.
- The published median puts one training image exactly on each hyperplane, so that its bit depends
  on rounding and on the other images of its batch. Here the hyperplane lies in the middle of the
  gap to the next image: all other bits are the same. `offset="median_published"` is the median
  itself.
- In distributed training the mean is over the correct images of all processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.batch import UNLABELLED, Batch
from understudy.config.limits import Count, Positive, Seed, Whole
from understudy.errors import RecipeError, ShapeError
from understudy.features import Extendable, Features, Shapes, TeacherOutputs
from understudy.functional import EPS, batch_mean, double, linear_no_grad
from understudy.methods._hashing import bce, bits, pack, unpack
from understudy.methods._method import Method
from understudy.methods._shapes import other_classes

Terms = Literal["lshl2", "lsh", "l2", "l1"]
Discrepancy = Literal["bce", "l1", "l2"]
Offset = Literal["median", "median_published", "mean", "zero"]

CHUNK_BYTES = 128 * 2**20
"""Upper bound of the memory that the medians need in addition to the features."""


def lsh(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    weight: Float[Tensor, "hashes dim"],
    bias: Float[Tensor, " hashes"],
    discrepancy: Discrepancy = "bce",
) -> Float[Tensor, " batch"]:
    """Average the discrepancy over the hashes of each row.

    `bce` compares the student's hash value with the teacher's bit, `l1` and `l2` with its value.
    """
    if discrepancy == "bce":
        return bce(student, bits(teacher, weight, bias), weight, bias)
    a_s, a_t = F.linear(student, weight, bias), F.linear(teacher, weight, bias)
    return l1(a_s, a_t) if discrepancy == "l1" else l2(a_s, a_t)


def l2(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Compute the mean squared difference of each row."""
    return (student - teacher).square().mean(1)


def l1(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Compute the mean absolute difference of each row."""
    return (student - teacher).abs().mean(1)


def correct(teacher: Features, batch: Batch) -> Bool[Tensor, " batch"]:
    """Return which images the teacher classifies correctly; an unlabelled image counts as correct.

    For a mixed image (mixup, cutmix), either of its two classes is correct; with soft labels, those
    of at most two that stand out of the others, else the class of the largest share.
    """
    if batch.soft is not None:
        return _correct_by_shares(teacher["logits"].argmax(1), batch.soft)
    predicted, labels = teacher["logits"].argmax(1), [batch.labels]
    if batch.mixed is not None:
        labels.append(batch.mixed.labels)
    return torch.stack([(predicted == y) | (y == UNLABELLED) for y in labels]).any(0)


def _correct_by_shares(
    predicted: Int[Tensor, " batch"], shares: Float[Tensor, "batch classes"]
) -> Bool[Tensor, " batch"]:
    # What smoothing adds to every class of an image is its smallest share.
    above = shares > shares.amin(1, keepdim=True) + 1e-6
    mixed: Tensor = above & (above.sum(1, keepdim=True) <= 2)
    largest = predicted == shares.argmax(1)
    either: Tensor = largest | mixed.gather(1, predicted.unsqueeze(1)).squeeze(1)
    return either


def medians(
    features: Sequence[Float[Tensor, "_ dim"]],
    weight: Float[Tensor, "hashes dim"],
    *,
    published: bool = False,
) -> Float[Tensor, " hashes"]:
    """Compute for each hash the median of its values over all images, whose features are batches.

    Exact: the lower median if `published`, else the middle between it and the next value.
    """
    images = sum(len(rows) for rows in features)
    # Twice the values of a chunk: `torch.cat` holds them and the parts it joins.
    hashes = max(1, CHUNK_BYTES // (2 * images * weight.itemsize))
    return torch.cat(
        [
            _median(torch.cat([linear_no_grad(chunk, x) for x in features], dim=1), published)
            for chunk in torch.split(weight, hashes)
        ]
    )


def _median(values: Float[Tensor, "hashes images"], published: bool) -> Float[Tensor, " hashes"]:
    """Compute the median of each row; reorders the values in place."""
    last = values.shape[1] - 1
    middle, next_one = last // 2, min(last // 2 + 1, last)
    # NumPy's partition is vectorised, and ten times as fast as `torch.median`.
    values.numpy().partition((middle, next_one), axis=1)
    lower, upper = values[:, middle], values[:, next_one]
    return lower if published else (lower + upper) / 2


@final
class FeatureMoments:
    """Mean and variance of the teacher's features over all images.

    Args:
        dim: Dimension of the features.
        keep: Whether to keep the features themselves, in `kept`.
    """

    def __init__(self, dim: int, *, keep: bool) -> None:
        self.kept: list[Float[Tensor, "_ dim"]] = []
        self._keep, self._count = keep, 0
        # Sums over all images lose digits in float32.
        self._sum, self._squares = torch.zeros(2, dim, dtype=torch.float64)

    def add(self, rows: Float[Tensor, "batch dim"]) -> None:
        """Add a batch of features."""
        if self._keep:
            self.kept.append(rows)
        exact = double(rows)
        self._count += len(rows)
        self._sum += exact.sum(0)
        self._squares += exact.square().sum(0)

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """Mean of the features."""
        mean: Tensor = self._sum / max(self._count, 1)
        return mean

    def unit_std(self) -> Float[Tensor, ""]:
        """Return the σ for which hash values over these features have standard deviation 1."""
        variance = self._squares / max(self._count, 1) - self.mean.square()
        std: Tensor = variance.sum().clamp_min(EPS).rsqrt()
        return std.float()


@final
class LSHFM(Method):
    """Feature mimicking: hash bits of the student's feature match the teacher's.

    Published weights: 6 (CIFAR-100) or 5 (ImageNet), with weight 1 on the task loss; 0.5 (VOC) or 3
    (COCO) for multi-label images; 7 for detection.

    Args:
        student: Shapes of the student; needs the vector `penultimate` of the teacher's dimension.
        teacher: Shapes of the teacher; needs the vector `penultimate`, and `logits` if `selective`.
        hashes: N; default: `hashes_per_dim` for each dimension of the feature. 0 without `lsh` in
            `terms` alone.
        hashes_per_dim: Published as 32 for single-label, 4 for multi-label images.
        hash_std: σ; default: the standard deviation of the teacher's classifier weights. Without a
            classifier, the σ for which hash values have deviation 1 over the training images, about
            that of class logits: σ² = 1 / Σ_d Var(f_t,d).
        offset: Statistic of the teacher's hash values, over one augmented view of the training
            images, that the offsets b move to 0; `zero` sets b = 0.
        terms: `lshl2` is L_lsh + L_mse, `lsh` and `l2` one of them, `l1` the mean absolute
            difference.
        discrepancy: Loss between the hash values of student and teacher.
        normalise: Scale features to length 1 before the l2 or l1 term. A zero row then has a
            gradient of the order 1e10, as in the released code.
        hash_seed: Seed of the hash directions; default: drawn with the run's seed. Set it to reuse
            stored bits for every seed of a run.
        selective: Use only images that the teacher classifies correctly. Requires one class per
            image, and a teacher of the same classes as the labels; off by default without labels.
        embed: Add the embedding layer `always`, or only if the dimensions differ (`auto`).
        products: Data type of the student's two matrix products with the hashes; `bf16` is faster
            and changes training slightly. The teacher's bits are always computed in fp32.
    """

    published_weight: ClassVar[float] = 6.0
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "multilabel": {"weight": 0.5, "hashes_per_dim": 4, "selective": False},
        "none": {"selective": False},
        "detection": {"weight": 7.0, "hashes": 4096, "offset": "zero", "selective": False},
    }
    embeds: ClassVar[bool] = True
    code_buffers: ClassVar[tuple[str, ...]] = ("hash_weight", "hash_bias")
    hash_weight: Float[Tensor, "hashes dim"]
    hash_bias: Float[Tensor, " hashes"]
    hash_std: Float[Tensor, ""]

    @classmethod
    def extend(cls, student: Extendable, teacher: Shapes, **hyper_parameters: Any) -> None:
        """Insert an embedding layer of the teacher's dimension."""
        dim = teacher.vector("penultimate")
        always = hyper_parameters.get("embed") == "always"
        if always or student.shapes.vector("penultimate") != dim:
            student.embed(dim)

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        hashes: Whole | None = None,
        hashes_per_dim: Count = 32,
        hash_std: Positive | None = None,
        offset: Offset = "median",
        terms: Terms = "lshl2",
        discrepancy: Discrepancy = "bce",
        normalise: bool = False,
        selective: bool = True,
        hash_seed: Seed | None = None,
        embed: Literal["auto", "always"] = "auto",
        products: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.unbounded_loss = terms == "lsh" and discrepancy == "bce"
        dim = _dimension(student, teacher)
        if selective:
            _check_same_classes(student, teacher)
        self.offset, self.terms, self.discrepancy = offset, terms, discrepancy
        self.normalise, self.selective, self.fixed_std = normalise, selective, hash_std
        self.products = products
        std = 1.0 if hash_std is None else hash_std
        count = hashes_per_dim * dim if hashes is None else hashes
        if "lsh" in terms and not count:
            raise RecipeError(f"'hashes' is 0; terms {terms!r} need at least 1.")
        count = count if "lsh" in terms else 0
        # Unscaled if σ is measured: `prepare` multiplies by it.
        self.register_buffer("hash_weight", std * _directions(count, dim, hash_seed))
        self.register_buffer("hash_bias", torch.zeros(count))
        self.register_buffer("hash_std", torch.tensor(std))
        # With a fixed σ and zero offsets nothing has to be measured.
        self.prepared = "lsh" not in terms or (hash_std is not None and offset == "zero")

    @property
    def reads(self) -> tuple[str, ...]:
        """Teacher features the loss needs: the penultimate and, if `selective`, the logits."""
        return ("penultimate", "logits") if self.selective else ("penultimate",)

    def codes(self, teacher: Features) -> Features:
        """Encode the penultimate feature as packed hash `bits`; empty unless bits are compared.

        The bits depend on the hashes, named in `code_buffers`: a bank must store these too.
        """
        if "lsh" not in self.terms or self.discrepancy != "bce":
            return {}
        t = teacher["penultimate"].to(self.hash_weight.dtype)
        return {"bits": pack(bits(t, self.hash_weight, self.hash_bias))}

    def prepare(self, teacher: TeacherOutputs) -> None:
        """Scale the hash directions to σ, and set the offsets from the teacher's features."""
        if "lsh" not in self.terms:
            return
        std = self._known_std(teacher)
        moments = FeatureMoments(len(self.hash_weight[0]), keep="median" in self.offset)
        if std is None or self.offset != "zero":
            # On the CPU: all features may exceed the GPU's memory, and medians use NumPy.
            for features, _ in teacher.batches(augmented=True):
                moments.add(features["penultimate"].to("cpu"))
        std = moments.unit_std() if std is None else std
        # Relative to the present σ, so that `prepare` may run again.
        self.hash_weight.mul_(std.to(self.hash_std) / self.hash_std)
        self.hash_std.copy_(std)
        self.hash_bias.copy_(-self._thresholds(moments))
        self.prepared = True

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Float[Tensor, ""]:
        """Return the unweighted loss; labels are used only to select images, if `selective`."""
        s = student["penultimate"]
        rows = s.new_zeros(len(s))
        if "lsh" in self.terms:
            rows = rows + self._hash(s, teacher)
        if self.terms != "lsh":
            rows = rows + self._mimic(s, teacher["penultimate"])
        return batch_mean(rows, correct(teacher, batch) if self.selective else None)

    def _hash(self, s: Tensor, teacher: Features) -> Float[Tensor, " batch"]:
        weight, bias = self.hash_weight, self.hash_bias
        if self.discrepancy != "bce":
            return lsh(s, teacher["penultimate"], weight, bias, self.discrepancy)
        # A bank of codes delivers the bits instead of the feature.
        if "bits" in teacher:
            h = unpack(teacher["bits"], len(bias))
        else:
            h = bits(teacher["penultimate"], weight, bias)
        return bce(s, h, weight, bias, torch.bfloat16 if self.products == "bf16" else None)

    def _mimic(self, s: Tensor, t: Tensor) -> Float[Tensor, " batch"]:
        if self.normalise:
            s, t = F.normalize(s, eps=EPS), F.normalize(t, eps=EPS)
        return l1(s, t) if self.terms == "l1" else l2(s, t)

    def _known_std(self, teacher: TeacherOutputs) -> Float[Tensor, ""] | None:
        if self.fixed_std is not None:
            return torch.as_tensor(self.fixed_std)
        weight = teacher.classifier_weight
        return None if weight is None else weight.detach().float().std()

    def _thresholds(self, moments: FeatureMoments) -> Tensor:
        if self.offset == "zero":
            return torch.zeros_like(self.hash_bias)
        weight = self.hash_weight.cpu()
        if self.offset == "mean":
            return (weight.double() @ moments.mean).to(weight.dtype)
        kept = [rows.to(weight.dtype) for rows in moments.kept]
        return medians(kept, weight, published=self.offset == "median_published")


def _directions(count: int, dim: int, seed: int | None) -> Float[Tensor, "hashes dim"]:
    if seed is None:
        return torch.randn(count, dim)
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def _check_same_classes(student: Shapes, teacher: Shapes) -> None:
    """Refuse the selective form if the teacher's predictions cannot be compared with labels."""
    if not student.exclusive_classes:
        raise ShapeError(
            "The selective form of lshfm needs one class per image, to compare it with the "
            f"teacher's prediction, but {student.owner} has several; set selective to false."
        )
    if "logits" not in teacher:
        raise ShapeError(
            "The selective form of lshfm compares the teacher's predictions with the labels, but "
            f"{teacher.owner} has no logits; set selective to false."
            f"{' ' + teacher.no_logits if teacher.no_logits else ''}"
        )
    if "logits" in student and student["logits"] != teacher["logits"]:
        raise ShapeError(
            "The selective form of lshfm compares the teacher's predictions with the labels, but "
            f"{other_classes(student, teacher)}, or set selective to false."
        )


def _dimension(student: Shapes, teacher: Shapes) -> int:
    dim_s, dim_t = student.vector("penultimate"), teacher.vector("penultimate")
    if dim_s != dim_t:
        raise ShapeError(
            f"lshfm compares penultimate features of one dimension, but {student.owner} has "
            f"{dim_s} and {teacher.owner} has {dim_t}; call LSHFM.extend(student, teacher.shapes) "
            "first, which gives the student an embedding layer."
        )
    return dim_s
