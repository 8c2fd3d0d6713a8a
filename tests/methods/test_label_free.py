"""Label-free methods in plain loops, and what they do beyond the authors' code."""

from itertools import product
from math import exp, log, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.forms import random, shapes
from tests.test_every_method import TEACHER, network
from tests.vectors.build import batch
from understudy import models, tasks
from understudy.batch import Batch
from understudy.config.recipe import Recipe
from understudy.distillation.wire import distiller
from understudy.errors import ShapeError
from understudy.features import Shapes
from understudy.functional import seeded
from understudy.methods.cwd import CWD, cwd
from understudy.methods.dense_mse import DenseMSE, dense_mse
from understudy.methods.dino import dino, sinkhorn
from understudy.methods.gram import gram
from understudy.methods.mgd import MGD, mgd
from understudy.methods.pkd import PKD, normalised, pkd
from understudy.methods.proteus import Proteus, feature, token
from understudy.methods.radio import cosine_l1
from understudy.methods.theia import theia
from understudy.methods.unic import UNIC, kept, shares, unic


def drawn(*size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*size).double(), torch.randn(*size).double()


def cosine(a: list[float], b: list[float]) -> float:
    lengths = (sqrt(sum(x * x for x in each)) for each in (a, b))
    total = sum(x * y for x, y in zip(a, b, strict=True))
    for length in lengths:
        total /= length
    return total


def smooth(a: list[float], b: list[float]) -> float:
    distances = [abs(x - y) for x, y in zip(a, b, strict=True)]
    return sum(d * d / 2 if d < 1 else d - 0.5 for d in distances) / len(distances)


def squares(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def rows(s: Tensor, t: Tensor) -> list[tuple[list[float], list[float]]]:
    return list(zip(s.tolist(), t.tolist(), strict=True))


def test_token_losses_equal_plain_loops() -> None:
    (s, t), (p, q) = drawn(2, 3), drawn(2, 4, 3)
    for i in range(2):
        of_tokens = rows(p[i], q[i])
        a, b = s[i].tolist(), t[i].tolist()
        each = sum(squares(*pair) for pair in of_tokens) / 4
        assert dense_mse(p, q)[i].item() == pytest.approx(each)
        each = sum(0.9 * (1 - cosine(*pair)) + 0.1 * smooth(*pair) for pair in of_tokens) / 4
        assert cosine_l1(p, q)[i].item() == pytest.approx(each)
        each = sum((1 - cosine(*pair) + smooth(*pair)) / 2 for pair in of_tokens) / 4
        whole = ((1 - cosine(a, b) + smooth(a, b)) / 2 + each) / 2
        assert unic((s, t), (p, q))[i].item() == pytest.approx(whole)
        assert token(s, t)[i].item() == pytest.approx(squares(a, b))
        each = (squares(a, b) + sum(squares(*pair) for pair in of_tokens)) / 5
        assert feature((s, t), (p, q))[i].item() == pytest.approx(each)
        flat = p[i].flatten().tolist(), q[i].flatten().tolist()
        expected = 0.9 * (1 - cosine(*flat)) + 0.1 * smooth(*flat)
        assert theia(p, q)[i].item() == pytest.approx(expected)
        cosines = [
            cosine(p[i, m].tolist(), p[i, n].tolist()) - cosine(q[i, m].tolist(), q[i, n].tolist())
            for m, n in product(range(4), repeat=2)
        ]
        assert gram(p, q)[i].item() == pytest.approx(sum(c * c for c in cosines) / 16)


def test_map_losses_equal_plain_loops() -> None:
    s, t = drawn(2, 3, 2, 2)
    for i in range(2):
        total = 0.0
        for a, b in rows(s[i].flatten(1), t[i].flatten(1)):
            q, p = ([exp(v / 2) for v in each] for each in (a, b))
            q, p = ([v / sum(each) for v in each] for each in (q, p))
            total += 4 * sum(x * log(x / y) for x, y in zip(p, q, strict=True)) / 3
        assert cwd(s, t, 2.0)[i].item() == pytest.approx(total)
        expected = 12 * squares(s[i].flatten().tolist(), t[i].flatten().tolist())
        assert mgd(s, t)[i].item() == pytest.approx(expected)
    n = 2 * 2 * 2
    channels = [
        torch.stack([s[:, c].flatten(), t[:, c].flatten()]).corrcoef()[0, 1] for c in range(3)
    ]
    expected = (1 - sum(channels).item() / 3) * (n - 1) / n
    assert pkd(s, t).mean().item() == pytest.approx(expected, rel=1e-5)


def test_a_constant_channel_of_pkd_has_no_gradient() -> None:
    s, t = drawn(2, 3, 4, 4)
    s[:, 1] = 0.1
    s.requires_grad_()
    pkd(s, t).mean().backward()
    assert not s.grad[:, 1].any()
    assert not normalised(torch.ones(1, 2, 1, 1)).any()


def test_maps_that_differ_in_width_alone_are_resized() -> None:
    sizes = {"stage1": (3, 4, 6)}, {"stage1": (5, 4, 3)}
    ours, theirs = (shapes(name, **each) for name, each in zip("st", sizes, strict=True))
    for kind in (CWD, PKD, MGD, DenseMSE):
        method = kind(ours, theirs).double()
        assert method(random(2, **sizes[0]), random(2, **sizes[1]), batch(2)).isfinite()


def test_negative_cosines() -> None:
    a, e = (torch.tensor(x).double()[None] for x in ([[1.0, 0], [-1, 0]], [[1.0, 0], [0, 1]]))
    assert gram(a, e).item() == pytest.approx(2 / 4)
    assert gram(a, e, "both").item() == 0
    # The teacher's cosine is 0, not negative, so that the student's −1 stays.
    assert gram(a, e, "teacher").item() == gram(a, e).item()
    assert gram(a, a, "teacher").item() == 0
    assert gram(a, a, "teacher_published").item() == pytest.approx(2 / 4)


def test_mgd_masks_its_share_in_training_alone() -> None:
    one = shapes("net", stage1=(8, 6, 6))
    x = torch.ones(50, 8, 6, 6)
    for masked, size in (("channels", (50, 8, 1, 1)), ("positions", (50, 1, 6, 6))):
        method = MGD(one, one, masked=masked, share=0.4)
        mask = method.mask(x)
        assert mask.shape == size
        assert mask.mean().item() == pytest.approx(0.6, abs=0.1)
        assert method.eval().mask(x).all()


def test_prototypes_are_used_equally_often_whatever_the_scale() -> None:
    p = sinkhorn(torch.randn(40, 5).double(), 0.5, 200)
    torch.testing.assert_close(p.sum(0), torch.full((5,), 8.0).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(p.sum(1), torch.ones(40).double())
    assert sinkhorn(1e4 * torch.randn(6, 5)).isfinite().all()
    assert sinkhorn(torch.zeros(0, 5)).shape == (0, 5)
    views = torch.randn(1, 4, 5)
    assert not dino(views, p[None, :4].float(), other_views=True).any()


def test_unic_counts_every_image_alike_unless_published() -> None:
    losses = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    keep = torch.tensor([[True, True], [True, False]])
    # The first image keeps both teachers, the second the first.
    assert shares(losses, keep).tolist() == pytest.approx([(1 / 2 + 4) / 2, (3 / 2) / 2])
    assert shares(losses, keep, "published").tolist() == pytest.approx([(1 + 4) / 3, 3 / 3])
    drawn_often = torch.stack([kept(losses, 0.5) for _ in range(400)]).float().mean(0)
    assert drawn_often[[1, 0], [0, 1]].tolist() == [1, 1]
    assert drawn_often[[0, 1], [0, 1]].tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_unic_learns_from_several_teachers_of_one_network() -> None:
    ours = {"penultimate": 4, "stage1": (3, 4, 4), "stage2": (4, 2, 2)}
    theirs = {"a/cls": 5, "a/patches": (5, 3, 3), "b/cls": 6, "b/patches": (6, 2, 2)}
    method = UNIC(
        shapes("s", **ours),
        shapes("t", **theirs),
        teachers=("a", "b"),
        hidden=8,
        last_hidden=8,
        momentum_steps=4,
    )
    assert method.reads == tuple(theirs)
    student, teacher = random(6, **ours), random(6, **theirs)
    first = method.double()(student, teacher, batch(6))
    assert first.isfinite()
    assert all(each.step == 1 for each in method.standardisers)
    method.eval()
    assert torch.equal(method(student, teacher, batch(6)), method(student, teacher, batch(6)))


def test_a_teacher_of_text_is_compared_by_its_summary() -> None:
    method = Proteus(shapes("s", penultimate=3), shapes("t", penultimate=4), feature_weight=0)
    assert method.reads == ("penultimate",)
    assert method(random(2, penultimate=3), random(2, penultimate=4), batch(2)) > 0


def test_lshfm_is_not_selective_without_labels() -> None:
    for task, reads in (("none", ("penultimate",)), ("classification", ("penultimate", "logits"))):
        recipe = Recipe(task=task, methods={"lshfm": {"hashes": 8}})
        wired = distiller(recipe, network(TEACHER), {"": network(TEACHER)}, tasks.find(task))
        assert wired.trainable.methods["lshfm"].reads == reads


def test_summaries_of_locations_are_not_added_to_whole_maps() -> None:
    sizes = {"penultimate": 4, "p5": (4, 2, 2)}
    net = shapes("detector", **sizes)
    method = Proteus(net, net, patches="p5").double()
    features = random(2, **sizes) | random(7, penultimate=4)
    with pytest.raises(ShapeError, match="7 summaries, of locations in a detector, and 2 maps"):
        method(features, features, batch(7))


def test_a_summary_of_another_width_is_no_row_beside_patches() -> None:
    net = shapes("cnn", penultimate=3, stage1=(4, 2, 2))
    with pytest.raises(ShapeError, match=r"'penultimate' of cnn has 3 values and 'stage1' has 4"):
        Proteus(net, net)
    assert Proteus(net, net, feature_weight=0).reads == ("penultimate",)


def test_dense_mse_reads_the_last_two_blocks_of_a_transformer_by_default() -> None:
    """Their patches, each behind the last norm, in their order: as timm's own function has them."""
    options = {"depth": 3, "embed_dim": 32, "num_heads": 2, "img_size": 32, "reg_tokens": 2}
    vit = models.find("timm:vit_tiny_patch16_224", options=options, size=32).eval()
    module: Any = vit.module
    torch.nn.init.uniform_(module.norm.weight)
    images = torch.rand(2, 3, 32, 32)
    features = vit.features(images)
    method = DenseMSE(Shapes("student", {"stage4": (5, 1, 1)}), vit.shapes)
    assert method.reads == ("patches/previous", "patches")
    prepared = (images - vit.get_buffer("_mean")) / vit.get_buffer("_std")
    last = module.get_intermediate_layers(prepared, n=2, norm=True, reshape=True)
    for name, expected in zip(method.reads, last, strict=True):
        torch.testing.assert_close(features[name], expected)
    assert method.head[0].weight.shape == (64, 5)
    convolutional = Shapes("teacher", {"stage3": (7, 2, 2), "stage4": (9, 1, 1)})
    assert DenseMSE(convolutional, convolutional).reads == ("stage4",)


TRANSFORMER = {"depth": 1, "num_heads": 2, "img_size": 32, "patch_size": 8, "num_classes": 0}


def transformer(dim: int) -> models.Network:
    options = {**TRANSFORMER, "embed_dim": dim}
    return models.find("timm:vit_tiny_patch16_224", options=options, size=32)


def test_proteus_compares_masked_patches_of_a_second_pass() -> None:
    recipe = Recipe(task="none", methods={"proteus": {}})
    wired = distiller(recipe, transformer(16), {"": transformer(32)}, tasks.find("none"))
    method: Any = wired.trainable.methods["proteus"]
    images, labels = torch.rand(5, 3, 32, 32), torch.full((5,), -1)
    with seeded(1):
        loss = wired(images, labels)["proteus"]
    with seeded(1):
        changed = method.second_images(Batch.of(images, labels))
    masked = changed.features["mask"]
    assert masked.shape == (5, 4, 4)
    assert masked.sum((1, 2)).sort().values.tolist() == [0, 0, 0, 8, 8]
    grey = torch.tensor([0.485, 0.456, 0.406])
    total, count = 0.0, 0
    student, teacher = (
        wired.student.features(changed.images),
        wired.teacher.network.features(images),
    )
    for i, row, column in masked.nonzero().tolist():
        area = changed.images[i, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(area, grey[:, None, None].expand(3, 8, 8))
        predicted = method.patch_head(student["patches"][i, :, row, column])
        total += float((predicted - teacher["patches"][i, :, row, column]).square().sum().detach())
        count += 32
    untouched = masked.sum((1, 2)) == 0
    assert torch.equal(changed.images[untouched], images[untouched])
    method.patch_weight = 0.0
    others = wired(images, labels)["proteus"]
    assert float(loss.detach()) == pytest.approx(float(others.detach()) + total / count, rel=1e-5)
    loss.backward()
    assert method.patch_head[1].weight.grad.abs().sum() > 0


def test_only_transformers_of_one_grid_have_patches_to_mask() -> None:
    cnn = shapes("cnn", penultimate=4, stage1=(4, 2, 2))
    assert Proteus(cnn, cnn).patch_weight == 0
    with pytest.raises(ShapeError, match=r"'stage1' of cnn is no grid of tokens"):
        Proteus(cnn, cnn, patch_weight=1.0)
    vit = transformer(16).shapes
    teacher = shapes("t", cls=32, patches=(32, 2, 2))
    with pytest.raises(ShapeError, match="has 4 × 4 patches and t 2 × 2"):
        Proteus(vit, teacher, patch_weight=1.0)
