"""LSHFM against plain loops, against closed forms of its expectation, and within its memory."""

import subprocess
import sys
from dataclasses import replace
from math import cos, exp, log, log1p, pi, radians, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.support.forms import angle, random, shapes
from tests.vectors.build import Outputs, batch
from understudy.batch import UNLABELLED, Mixed
from understudy.errors import RecipeError, ShapeError
from understudy.features import Features, Shapes
from understudy.methods._hashing import bce, bits, pack, unpack
from understudy.methods.lshfm import LSHFM, correct, l2, lsh, medians

HASHES = 400_000
FLAT = shapes("net", penultimate=4, logits=3)


def made(**hyper: object) -> LSHFM:
    torch.manual_seed(0)
    return LSHFM(FLAT, FLAT, hash_std=0.5, offset="zero", **hyper)


def softplus(a: float) -> float:
    return max(a, 0.0) + log1p(exp(-abs(a)))


@pytest.mark.parametrize("terms", ["lshl2", "lsh", "l2", "l1"])
@pytest.mark.parametrize("selective", [True, False])
def test_equals_the_formula_in_plain_loops(terms: str, selective: bool) -> None:
    method = made(terms=terms, selective=selective, hashes=7).double()
    student, teacher = random(6, penultimate=4), random(6, penultimate=4, logits=3)
    labels = teacher["logits"].argmax(1)
    labels[:3] = torch.tensor([(labels[0] + 1) % 3, UNLABELLED, (labels[2] + 2) % 3])
    total, count = 0.0, 0
    for i, (s, t) in enumerate(
        zip(student["penultimate"].tolist(), teacher["penultimate"].tolist(), strict=True)
    ):
        if selective and labels[i] not in (UNLABELLED, teacher["logits"][i].argmax()):
            continue
        count += 1
        if "lsh" in terms:
            for w in method.hash_weight.tolist():
                a = sum(x * y for x, y in zip(s, w, strict=True))
                bit = float(sum(x * y for x, y in zip(t, w, strict=True)) > 0)
                total += (softplus(a) - bit * a) / 7
        if terms in ("lshl2", "l2"):
            total += sum((x - y) ** 2 for x, y in zip(s, t, strict=True)) / 4
        if terms == "l1":
            total += sum(abs(x - y) for x, y in zip(s, t, strict=True)) / 4
    assert method(student, teacher, batch(6, labels)).item() == pytest.approx(total / count)


# ---- closed forms of the expectation over the hashes --------------------------------------------


def hashes(dim: int = 6, std: float = 1.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    weight = std * torch.randn(HASHES, dim, dtype=torch.float64)
    return weight, torch.zeros(HASHES, dtype=torch.float64)


def gaussian_mean(function, points: int = 20_001) -> float:  # type: ignore[no-untyped-def]
    """E f(z), z ~ N(0, 1), by the trapezoidal rule."""
    z = torch.linspace(-12, 12, points, dtype=torch.float64)
    return torch.trapezoid(function(z) * (-(z**2) / 2).exp() / sqrt(2 * pi), z).item()


@pytest.mark.parametrize("degrees", [0.0, 20.0, 75.0, 130.0, 180.0])
def test_bits_agree_in_proportion_to_the_angle(degrees: float) -> None:
    weight, _ = hashes()
    s, t = angle(degrees)
    agree = ((s @ weight.T > 0) == (3.7 * t @ weight.T > 0)).double().mean().item()
    assert agree == pytest.approx(1 - degrees / 180, abs=3e-3)


@pytest.mark.parametrize("degrees", [0.0, 40.0, 90.0, 150.0])
@pytest.mark.parametrize("length", [0.1, 1.0, 4.0])
def test_expected_loss_is_a_cosine_loss(degrees: float, length: float) -> None:
    weight, bias = hashes(std=0.5)
    s, t = angle(degrees)
    r = 0.5 * length
    expected = gaussian_mean(lambda z: torch.nn.functional.softplus(r * z))
    expected -= r * cos(radians(degrees)) / sqrt(2 * pi)
    assert lsh(length * s, t, weight, bias).item() == pytest.approx(expected, abs=3e-3)


def test_expected_gradient_pulls_along_the_teacher_and_shrinks() -> None:
    weight, bias = hashes(std=0.7)
    s, t = angle(50.0)
    leaf = (2.0 * s).requires_grad_()
    lsh(leaf, 5.0 * t, weight, bias).sum().backward()
    shrink = gaussian_mean(lambda z: z * torch.sigmoid(0.7 * 2.0 * z))
    torch.testing.assert_close(leaf.grad, 0.7 * (shrink * s - t / sqrt(2 * pi)), rtol=0, atol=3e-3)


@pytest.mark.parametrize(("degrees", "best"), [(15, 6.70), (30, 3.04), (45, 1.70), (60, 0.95)])
def test_best_norm_depends_on_the_angle(degrees: float, best: float) -> None:
    weight, bias = hashes()
    s, t = angle(degrees)
    leaf = (best * s).requires_grad_()
    lsh(leaf, t, weight, bias).sum().backward()
    assert (leaf.grad * s).sum().item() == pytest.approx(0, abs=3e-3)


def test_loss_falls_with_the_norm_where_the_direction_is_right() -> None:
    weight, bias = hashes()
    _, t = angle(0.0)
    losses = [lsh(r * t, t, weight, bias).item() for r in (0.0, 0.5, 1, 2, 4, 8, 100, 1e4)]
    assert losses[0] == pytest.approx(log(2))
    assert losses == sorted(losses, reverse=True)


def test_zero_student_still_feels_the_teacher() -> None:
    weight, bias = hashes(std=0.3)
    _, t = angle(0.0)
    leaf = torch.zeros_like(t).requires_grad_()
    lsh(leaf, t, weight, bias).sum().backward()
    torch.testing.assert_close(leaf.grad, -0.3 * t / sqrt(2 * pi), rtol=0, atol=2e-3)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8))
def test_squared_error_mixes_norm_and_angle(values: list[float]) -> None:
    s, t = torch.tensor(values, dtype=torch.float64).view(2, 1, 4)
    ours, theirs, product = s.norm(), t.norm(), (s * t).sum()
    parts = (ours - theirs) ** 2 + 2 * (ours * theirs - product)
    assert (4 * l2(s, t)).item() == pytest.approx(parts.item(), abs=1e-9)


# ---- offsets ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.booleans())
def test_medians_are_exact(images: int, seed: int, ties: bool) -> None:
    torch.manual_seed(seed)
    features = (
        torch.randint(-2, 3, (images, 3)).double() if ties else torch.randn(images, 3).double()
    )
    weight = torch.randn(5, 3).double()
    parts = features.split(7)
    ordered = (weight @ features.T).sort(1).values
    place = (images - 1) // 2
    low, high = ordered[:, place], ordered[:, min(place + 1, images - 1)]
    torch.testing.assert_close(medians(parts, weight, published=True), low)
    torch.testing.assert_close(medians(parts, weight), (low + high) / 2)


def test_plane_in_the_gap_leaves_all_bits_as_published_and_none_to_rounding() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(101, 8).relu(), torch.randn(64, 8)
    exact = features.double() @ weight.double().T
    published = medians([features.double()], weight.double(), published=True)
    between = medians([features], weight)
    assert torch.equal(exact > published, exact > between.double())
    assert ((exact - published).abs().amin(0) == 0).all()
    assert ((exact - between).abs().amin(0) > 1e-6).all()


def test_every_bit_halves_the_training_set() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(200, 8).relu() + 1, torch.randn(64, 8)
    bits = features @ weight.T > medians([features], weight)
    assert (bits.sum(0) == 100).all()


def test_prepare_takes_the_deviation_of_the_classifier_and_the_mean_of_the_images() -> None:
    torch.manual_seed(0)
    method = LSHFM(FLAT, FLAT, offset="mean")
    assert method.hash_weight.shape == (32 * 4, 4)
    directions = method.hash_weight.clone()
    features = {"penultimate": torch.randn(50, 4), "logits": torch.randn(50, 3)}
    classifier = 0.2 * torch.randn(3, 4)
    for size in (50, 8):
        method.prepare(Outputs(features, None, classifier, batch=size))
        torch.testing.assert_close(method.hash_weight, classifier.std() * directions)
        mean = (features["penultimate"] @ method.hash_weight.T).mean(0)
        torch.testing.assert_close(method.hash_bias, -mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", ["median", "mean", "zero"])
def test_without_a_classifier_hash_values_deviate_by_one(offset: str) -> None:
    torch.manual_seed(0)
    bare = shapes("net", penultimate=8)
    method = LSHFM(bare, bare, offset=offset, selective=False, hashes=4096)
    features = 3 + torch.randn(500, 8) * torch.linspace(0.1, 20, 8)
    for size in (500, 64):
        method.prepare(Outputs({"penultimate": features}, batch=size))
        std = features.double().var(0, correction=0).sum().rsqrt()
        assert float(method.hash_std) == pytest.approx(float(std))
        values = features @ method.hash_weight.T + method.hash_bias
        # On average over the hashes; a single one depends on its direction.
        variance = values.var(0, correction=0).mean().item()
        assert variance == pytest.approx(1, abs=0.05)


def test_of_a_mixed_image_either_class_is_correct() -> None:
    logits = torch.eye(3)[[0, 0, 0, 0]]
    mixed = Mixed(torch.tensor([1, 0, 2, UNLABELLED]), torch.full((4,), 0.7))
    images = replace(batch(4, [0, 1, 1, 1]), mixed=mixed)
    assert correct({"logits": logits}, images).tolist() == [True, True, False, True]


MEASURE = """
import resource, torch
from understudy.methods.lshfm import medians

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.manual_seed(0)
weight, features = torch.randn(65_536, 64), list(torch.randn(2_000, 64).split(256))
before = peak()
medians(features, weight)
print(peak() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel reports peak memory in KiB on Linux"
)
def test_offsets_of_65536_hashes_fit_in_256_megabytes() -> None:
    """The full table of hash values would take 500 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 256


# ---- bits, and the fused form -------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 10_000))
def test_packed_bits_come_back(rows: int, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    h = torch.randint(2, (rows, count), dtype=torch.uint8)
    packed = pack(h)
    assert packed.shape == (rows, -(-count // 8))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, count), h)


def step(method: LSHFM, student: Features, teacher: Features, labels: Tensor) -> list[Tensor]:
    s = student["penultimate"].clone().requires_grad_()
    loss = method({"penultimate": s}, teacher, batch(len(s), labels))
    loss.backward()
    assert s.grad is not None
    return [loss.detach(), s.grad]


@pytest.mark.parametrize("terms", ["lshl2", "lsh"])
@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_with_codes_the_loss_is_the_same_to_the_bit(
    terms: str, selective: bool, products: str
) -> None:
    method = made(terms=terms, selective=selective, hashes=83, products=products)
    student, teacher = (
        {name: x.float() for name, x in random(6, penultimate=4, logits=3).items()}
        for _ in range(2)
    )
    labels = teacher["logits"].argmax(1)
    labels[0] = (labels[0] + 1) % 3
    codes = method.codes(teacher)
    assert {x.dtype for x in codes.values()} == {torch.uint8}
    # Where nothing but bits is compared, they stand for the feature.
    needed = {
        name: teacher[name] for name in method.reads if (name, terms) != ("penultimate", "lsh")
    }
    assert ("logits" in needed) == selective
    full, coded = (step(method, student, t, labels) for t in (teacher, needed | codes))
    assert all(torch.equal(a, b) for a, b in zip(full, coded, strict=True))


@pytest.mark.parametrize("hyper", [{"terms": "l2"}, {"discrepancy": "l1"}])
def test_no_codes_where_no_bits_are_compared(hyper: dict[str, str]) -> None:
    method = made(**hyper)
    assert method.codes({"penultimate": torch.randn(2, 4)}) == {}


def test_codes_depend_on_what_is_named() -> None:
    first, second = LSHFM(FLAT, FLAT), LSHFM(FLAT, FLAT)
    teacher = {"penultimate": torch.randn(9, 4)}
    assert not torch.equal(first.codes(teacher)["bits"], second.codes(teacher)["bits"])
    for name in LSHFM.code_buffers:
        getattr(second, name).copy_(getattr(first, name))
    assert torch.equal(first.codes(teacher)["bits"], second.codes(teacher)["bits"])


def test_seed_of_the_hashes_is_apart_from_that_of_the_run() -> None:
    same = [LSHFM(FLAT, FLAT, hash_seed=3).hash_weight for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(LSHFM(FLAT, FLAT, hash_seed=4).hash_weight, same[0])
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    LSHFM(FLAT, FLAT, hash_seed=3)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("count", [7, 64, 96])
def test_fused_gradient_is_that_of_finite_differences(count: int) -> None:
    s, t, weight = (torch.randn(n, 4, dtype=torch.float64) for n in (3, 3, count))
    bias = torch.randn(count, dtype=torch.float64)
    h = bits(t, weight, bias)
    assert torch.autograd.gradcheck(lambda x: bce(x, h, weight, bias), s.requires_grad_())


@pytest.mark.parametrize("size", [1e2, 1e4, 1e15, 1e30])
def test_huge_features_give_a_finite_loss(size: float) -> None:
    s, t, weight = torch.randn(5, 4), torch.randn(5, 4), torch.randn(128, 4)
    leaf = (size * s).requires_grad_()
    h, bias = bits(t, weight, torch.zeros(128)), torch.zeros(128)
    rows = bce(leaf, h, weight, bias)
    rows.sum().backward()
    exact = F.binary_cross_entropy_with_logits(
        size * s @ weight.T, h.float(), reduction="none"
    ).mean(1)
    torch.testing.assert_close(rows, exact)
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_products_in_bf16_are_close_and_not_the_same() -> None:
    student, teacher = (
        {name: x.float() for name, x in random(6, penultimate=4, logits=3).items()}
        for _ in range(2)
    )
    labels = teacher["logits"].argmax(1)
    exact, lower = (
        step(made(products=p, terms="lsh"), student, teacher, labels) for p in ("fp32", "bf16")
    )
    for a, b in zip(exact, lower, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


# ---- what it works on ---------------------------------------------------------------------------


def test_no_correct_image_gives_zero_and_no_gradient() -> None:
    method = made().double()
    student, teacher = random(5, penultimate=4), random(5, penultimate=4, logits=3)
    s = student["penultimate"].requires_grad_()
    wrong = (teacher["logits"].argmax(1) + 1) % 3
    loss = method(student, teacher, batch(5, wrong))
    loss.backward()
    assert loss == 0
    assert not s.grad.any()


def test_teacher_without_logits_needs_all_images() -> None:
    encoder = shapes("encoder", penultimate=4)
    with pytest.raises(ShapeError, match="set selective to false"):
        LSHFM(FLAT, encoder)
    LSHFM(FLAT, encoder, selective=False)


class Recording:
    """A student that notes the embedding layers it is asked for."""

    def __init__(self, dim: int) -> None:
        self.shapes: Shapes = shapes("student", penultimate=dim)
        self.layers: list[int] = []

    def embed(self, dim: int) -> None:
        self.layers.append(dim)


@pytest.mark.parametrize(
    ("dim", "embed", "layers"), [(4, "auto", []), (4, "always", [4]), (3, "auto", [4])]
)
def test_embedding_layer_comes_where_it_is_needed(dim: int, embed: str, layers: list[int]) -> None:
    student = Recording(dim)
    LSHFM.extend(student, FLAT, embed=embed, hashes=8)
    assert student.layers == layers


def test_unequal_dimensions_are_refused_with_the_way_out() -> None:
    with pytest.raises(ShapeError, match="extend"):
        LSHFM(shapes("small", penultimate=3), FLAT)


def test_no_hashes_are_for_losses_without_them_alone() -> None:
    assert not len(made(terms="l2", hashes=0).hash_weight)
    with pytest.raises(RecipeError, match="'hashes' is 0; terms 'lshl2' need at least 1"):
        made(terms="lshl2", hashes=0)
