"""Mixup and cutmix: against timm and plain loops; the same however the batch is spread."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from understudy import tasks
from understudy.batch import UNLABELLED, Batch, Mixed
from understudy.data import FileSource, FileViews, Loader, MemoryViews
from understudy.data.mixup import Blend, Mixing, mirrored_rows
from understudy.errors import DataError, RecipeError

BOTH = Mixing(mixup=0.8, cutmix=1.0)
SIDE = 6


def drawn(mixing: Mixing, count: int = 4000, side: int = 32) -> list[Blend]:
    return list(mixing.blends(side, seed=3, epoch=1, steps=count))


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_mixup_is_that_of_timm_and_of_the_formula(batch: int) -> None:
    images = torch.rand(batch, 3, SIDE, SIDE)
    mixed = Blend(0.3)(images.clone())
    for i in range(batch):
        expected = 0.3 * images[i] + 0.7 * images[batch - 1 - i]
        torch.testing.assert_close(mixed[i], expected)
    theirs = Mixup()
    theirs._params_per_batch = lambda: (0.3, False)
    again = images.clone()
    theirs._mix_batch(again)
    torch.testing.assert_close(mixed, again)


def test_cutmix_puts_the_box_of_the_other_image() -> None:
    images = torch.rand(5, 3, SIDE, SIDE)
    mixed = Blend(0.5, (slice(1, 4), slice(0, 6)))(images.clone())
    for i in range(5):
        for y in range(SIDE):
            source = images[4 - i] if 1 <= y < 4 else images[i]
            assert torch.equal(mixed[i, :, y], source[:, y])


def test_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.2, 1.0, 4.0):
        shares = torch.tensor([b.share for b in drawn(Mixing(mixup=alpha))])
        assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
        assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_boxes_have_the_share_that_labels_are_told() -> None:
    for blend in drawn(Mixing(cutmix=1.0), side=16):
        assert blend.box is not None
        rows, columns = blend.box
        assert 0 <= rows.start <= rows.stop <= 16
        cut = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert blend.share == pytest.approx(1 - cut / 256)


def test_boxes_of_oblong_images_have_their_proportions() -> None:
    blends = Mixing(cutmix=1.0).blends((60, 20), seed=0, epoch=0, steps=200)
    boxes = [blend.box for blend in blends if blend.box is not None]
    for blend, (rows, columns) in zip(blends, boxes, strict=True):
        assert rows.stop <= 60
        assert columns.stop <= 20
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert blend.share == 1 - area / 1200
    assert max(rows.stop - rows.start for rows, _ in boxes) > 40


def test_of_both_every_step_takes_one() -> None:
    cut = [blend.box is not None for blend in drawn(BOTH)]
    assert sum(cut) / len(cut) == pytest.approx(0.5, abs=0.03)
    assert not any(blend.box for blend in drawn(Mixing(mixup=0.8)))


def test_blends_depend_on_seed_epoch_and_step_alone() -> None:
    first = BOTH.blends(32, seed=0, epoch=0, steps=50)
    before = torch.get_rng_state()
    assert BOTH.blends(32, seed=0, epoch=0, steps=80)[:50] == first
    assert torch.equal(torch.get_rng_state(), before)
    for other in ({"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}):
        assert not any(blend in first for blend in BOTH.blends(32, steps=50, **other))
    assert all(first.count(blend) == 1 for blend in first)


@given(
    rows=st.integers(2, 60),
    world=st.integers(1, 4),
    parts=st.integers(1, 4),
)
def test_every_part_of_a_batch_is_its_own_mirror_image(rows: int, world: int, parts: int) -> None:
    if rows < 2 * world * parts:
        return
    found = [mirrored_rows(rows, rank=r, world=world, parts=parts) for r in range(world)]
    assert all(len(each) == parts for each in found)
    for part in (part for each in found for part in each):
        assert torch.equal(part + part.flip(0), torch.full_like(part, rows - 1))
        assert len(part) >= 2
    every = torch.cat([part for each in found for part in each])
    assert sorted(every.tolist()) == list(range(rows))
    (whole,) = mirrored_rows(rows)
    assert torch.equal(whole, torch.arange(rows))


# ---- in the loader --------------------------------------------------------------------------


def loader(images: int = 50, **options: object) -> Loader:
    torch.manual_seed(0)
    pixels = torch.randint(256, (images, 3, SIDE, SIDE), dtype=torch.uint8)
    views = MemoryViews(pixels, augment="flip", size=SIDE, seed=0)
    options = {"batch": 13, "mixing": BOTH, "seed": 0, **options}
    return Loader(views, torch.arange(images) % 7, shuffle=True, **options)  # type: ignore[arg-type]


def by_image(batches: list[Batch]) -> dict[int, tuple[Tensor, int, int, float]]:
    """Image number → pixels, label, label of the other image, share."""
    found = {}
    for batch in batches:
        assert batch.mixed is not None
        numbers = (batch.labels, batch.mixed.labels, batch.mixed.share)
        for i, image, *rest in zip(
            batch.index.tolist(), batch.images, *(x.tolist() for x in numbers), strict=True
        ):
            found[i] = (image, *rest)
    return found


def same(one: list[Batch], other: list[Batch]) -> None:
    ours, theirs = by_image(one), by_image(other)
    assert ours.keys() == theirs.keys()
    for i, (image, *rest) in ours.items():
        assert torch.equal(image, theirs[i][0])
        assert (*rest,) == theirs[i][1:]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (3, 2), (1, 4)])
def test_processes_and_micro_batches_mix_the_same_images(world: int, accumulate: int) -> None:
    alone = list(loader().epoch(2))
    shares = [
        list(loader(rank=r, world=world, accumulate=accumulate).epoch(2)) for r in range(world)
    ]
    assert len(alone) in (len(shares[0]), len(shares[0]) + 1)
    for whole, *parts in zip(alone, *shares, strict=False):
        same(whole, [micro for part in parts for micro in part])


def test_an_image_is_mixed_with_its_mirror_image_in_the_batch() -> None:
    mixed = [batch for (batch,) in loader().epoch(0)]
    single = [batch for (batch,) in loader(mixing=None).epoch(0)]
    blends = BOTH.blends(SIDE, seed=0, epoch=0, steps=len(mixed))
    assert {blend.box is None for blend in blends} == {True, False}
    for ours, pure, blend in zip(mixed, single, blends, strict=True):
        assert torch.equal(ours.index, pure.index)
        assert torch.equal(ours.images, blend(pure.images.clone()))
        assert ours.mixed is not None
        assert torch.equal(ours.mixed.labels, pure.labels.flip(0))
        assert ours.mixed.share.unique().tolist() == pytest.approx([blend.share])
        assert pure.mixed is None


def test_starting_later_mixes_the_same() -> None:
    steps = list(loader().epoch(1))
    for whole, later in zip(steps[2:], loader().epoch(1, start=2), strict=True):
        same(whole, later)


def test_what_is_measured_is_not_mixed() -> None:
    assert all(batch.mixed is None for batch in loader().single_pass(augmented=True))


def test_workers_mix_the_same(tree: Path) -> None:
    paths = sorted(tree.glob("train/*/*.png"))
    data = FileSource(paths, torch.tensor([0, 0, 0, 1, 1, 1]), ("cat", "dog"), root=tree)
    views = FileViews(data, augment="resized_crop", size=16, seed=0)
    runs = [
        [
            micro
            for step in Loader(
                views, data.labels, seed=0, shuffle=True, batch=4, mixing=BOTH, workers=workers
            ).epoch(3)
            for micro in step
        ]
        for workers in (0, 1)
    ]
    same(*runs)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(DataError, match="use a batch of 16"):
        loader(batch=15, world=4, accumulate=2)
    with pytest.raises(RecipeError, match=r"data\.cutmix"):
        Mixing(cutmix=-1)
    with pytest.raises(RecipeError, match=r"label_smoothing' is 1"):
        loader(smoothing=1.0)


# ---- in the loss on labels ------------------------------------------------------------------


def images(labels: Tensor, share: float, smoothing: float = 0.0) -> Batch:
    mixed = Mixed(labels.flip(0), torch.full(labels.shape, share))
    plain = Batch.of(torch.zeros(len(labels), 3, 1, 1), labels)
    return replace(plain, mixed=mixed, smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_timms_soft_targets(smoothing: float) -> None:
    labels, logits = torch.tensor([0, 1, 4, 2]), torch.randn(4, 5)
    targets = mixup_target(labels, 5, 0.3, smoothing)
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    task = tasks.find("classification")
    loss = task.loss({"logits": logits}, images(labels, 0.3, smoothing))
    torch.testing.assert_close(loss, expected)
    smooth = replace(images(labels, 0.3, smoothing), mixed=None)
    targets = mixup_target(labels, 5, 1.0, smoothing)
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss({"logits": logits}, smooth), expected)


def test_a_label_counts_by_the_share_of_its_image() -> None:
    labels, logits = torch.tensor([0, UNLABELLED, 2, UNLABELLED]), torch.randn(4, 5)
    log = logits.log_softmax(1)
    # Images 0 and 3, and 1 and 2, are mixed; each pair has one label.
    rows = [-0.3 * log[0, 0], -0.7 * log[1, 2], -0.3 * log[2, 2], -0.7 * log[3, 0]]
    loss = tasks.find("classification").loss({"logits": logits}, images(labels, 0.3))
    torch.testing.assert_close(loss, torch.stack(rows).mean())
