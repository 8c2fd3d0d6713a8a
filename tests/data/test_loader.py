from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from understudy.batch import UNLABELLED, Batch
from understudy.data import CLEAN, FileSource, FileViews, Loader, MemorySource, MemoryViews
from understudy.data._answers import ViewDataset
from understudy.errors import DataError, OutOfMemory


def coded(images: int) -> MemorySource:
    """Images whose every pixel is their number; class = number modulo 5."""
    number = torch.arange(images)
    pixels = number.to(torch.uint8)[:, None, None, None].repeat(1, 3, 4, 4)
    return MemorySource(pixels, number % 5, tuple("abcde"))


def loader(
    images: int, *, seed: int = 0, labels: Tensor | None = None, **options: object
) -> Loader:
    data = coded(images)
    views = MemoryViews(data.pixels, augment="none", size=4, seed=seed)
    options = {"shuffle": True, "batch": 8, **options}
    return Loader(views, data.labels if labels is None else labels, seed=seed, **options)  # type: ignore[arg-type]


def rows(batches: list[Batch]) -> list[tuple[int, int, int]]:
    """Image, view and label of every row; the pixels must tell the same image."""
    for batch in batches:
        assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.index)
    return [
        row
        for b in batches
        for row in zip(b.index.tolist(), b.view.tolist(), b.labels.tolist(), strict=True)
    ]


sizes = {
    "images": st.integers(2, 100),
    "batch": st.integers(2, 20),
    "seed": st.integers(0, 2**31),
    "epoch": st.integers(0, 300),
}


@given(**sizes)
def test_an_epoch_shows_every_image_once_in_the_epochs_view(
    images: int, batch: int, seed: int, epoch: int
) -> None:
    one = loader(images, batch=batch, seed=seed)
    steps = list(one.epoch(epoch))
    seen = [row for step in steps for row in rows(step)]
    dropped = images % batch == 1
    assert len(steps) == len(one)
    assert len({i for i, _, _ in seen}) == len(seen) == images - dropped
    assert all(view == epoch and label == i % 5 for i, view, label in seen)


@given(**sizes, world=st.integers(1, 4), accumulate=st.integers(1, 3))
def test_processes_and_micro_batches_together_see_the_same_batch(
    images: int, batch: int, seed: int, epoch: int, world: int, accumulate: int
) -> None:
    if min(images, batch) < 2 * world * accumulate:
        return
    options = {"batch": batch, "seed": seed}
    alone = list(loader(images, **options).epoch(epoch))  # type: ignore[arg-type]
    shares = [
        list(loader(images, **options, accumulate=accumulate, rank=r, world=world).epoch(epoch))  # type: ignore[arg-type]
        for r in range(world)
    ]
    for whole, *parts in zip(alone, *shares, strict=False):
        assert sorted(rows(whole)) == sorted(row for part in parts for row in rows(part))
        assert all(len(part) == accumulate for part in parts)
        assert min(len(micro) for part in parts for micro in part) >= 2
        sizes = [sum(len(micro) for micro in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert len({len(share) for share in shares}) == 1
    assert len(alone) - len(shares[0]) in (0, 1)


@given(**sizes, share=st.none() | st.just(0.5), data=st.data())
def test_starting_later_gives_the_same_steps(
    images: int, batch: int, seed: int, epoch: int, share: float | None, data: st.DataObject
) -> None:
    labels = torch.where(torch.arange(images) % 3 == 0, 1, UNLABELLED)
    one = loader(images, batch=batch, seed=seed, labels=labels, labelled_share=share)
    start = data.draw(st.integers(0, len(one)))
    steps = [rows(step) for step in one.epoch(epoch)]
    assert [rows(step) for step in one.epoch(epoch, start=start)] == steps[start:]


@given(
    images=st.integers(10, 100),
    known=st.integers(1, 9),
    batch=st.integers(2, 20),
    share=st.sampled_from([0.25, 0.5, 0.75]),
    epoch=st.integers(0, 50),
)
def test_every_batch_has_its_share_of_labelled_images(
    images: int, known: int, batch: int, share: float, epoch: int
) -> None:
    labels = torch.arange(images) % 5
    labels[known:] = UNLABELLED
    one = loader(images, batch=batch, labels=labels, labelled_share=share)
    steps = list(one.epoch(epoch))
    assert len(one) == len(steps) == -(-images // batch)
    for (micro,) in steps:
        assert len(micro) == batch
        assert int(micro.labelled.sum()) == round(share * batch)
    shown = [(i, view) for step in steps for i, view, _ in rows(step)]
    assert len(set(shown)) == len(shown)
    counts = torch.bincount(torch.tensor([i for i, _ in shown]), minlength=images)
    for part in (counts[:known], counts[known:]):
        assert part.max() - part.min() <= 1


def test_a_labelled_share_counts_images_not_classes() -> None:
    labels = (torch.rand(60, 7) < 0.4).long()
    labels[20:] = UNLABELLED
    index, _ = loader(60, labels=labels, labelled_share=0.5).epoch_order(0)
    assert (index < 20).view(-1, 8).sum(1).tolist() == [4] * 8


def test_repeated_images_never_show_a_view_twice_in_training() -> None:
    labels = torch.full((40,), UNLABELLED)
    labels[:3] = 1
    one = loader(40, labels=labels, labelled_share=0.5)
    shown = [(i, v) for epoch in range(6) for s in one.epoch(epoch) for i, v, _ in rows(s)]
    assert len(set(shown)) == len(shown)


def test_labelled_images_come_to_every_process() -> None:
    labels = torch.where(torch.arange(100) < 50, 1, UNLABELLED)
    share = loader(100, batch=50, labels=labels, labelled_share=0.5, rank=1, world=2)
    found = [int(micro.labelled.sum()) for step in share.epoch(0) for micro in step]
    assert all(4 <= count <= 21 for count in found)


@pytest.mark.parametrize(("known", "missing"), [(0, "labelled"), (20, "unlabelled")])
def test_a_share_of_images_that_do_not_exist_is_refused(known: int, missing: str) -> None:
    labels = torch.where(torch.arange(20) < known, 1, UNLABELLED)
    with pytest.raises(DataError, match=f"hold 4 {missing} images, but the data have none"):
        list(loader(20, labels=labels, labelled_share=0.5).epoch(0))


def test_epochs_and_seeds_differ() -> None:
    orders = [
        [i for step in loader(50, seed=seed).epoch(epoch) for i, _, _ in rows(step)]
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(a != b for k, a in enumerate(orders) for b in orders[:k])


@given(images=st.integers(1, 40), batch=st.integers(1, 12), world=st.integers(1, 3))
def test_evaluation_sees_every_image_in_order(images: int, batch: int, world: int) -> None:
    everything = [(i, CLEAN, i % 5) for i in range(images)]
    alone = loader(images, batch=batch, shuffle=False)
    assert rows(list(alone.single_pass(augmented=False))) == everything
    assert [i for step in alone.epoch(0) for i, _, _ in rows(step)] == list(range(images))
    shares = [
        rows(
            list(
                loader(images, batch=batch, shuffle=False, rank=r, world=world).single_pass(
                    augmented=False
                )
            )
        )
        for r in range(world)
    ]
    assert sorted(row for share in shares for row in share) == everything


def test_once_augmented_shows_view_zero() -> None:
    assert {view for _, view, _ in rows(list(loader(20).single_pass(augmented=True)))} == {0}


@pytest.mark.parametrize("options", [{}, {"world": 2}, {"accumulate": 4}])
def test_too_few_images_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(DataError, match="too few"):
        loader(1, **options)


def test_global_random_state_is_not_touched() -> None:
    before = torch.get_rng_state()
    list(loader(30).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_change_nothing(tree: Path) -> None:
    paths = sorted(tree.glob("train/*/*.png"))
    data = FileSource(paths, torch.tensor([0, 0, 0, 1, 1, 1]), ("cat", "dog"), root=tree)
    views = FileViews(data, augment="resized_crop", size=16, seed=0)
    before = torch.get_rng_state()
    runs = []
    for workers in (0, 2):
        options = {"batch": 4, "accumulate": 2, "workers": workers}
        one = Loader(views, data.labels, seed=0, shuffle=True, **options)  # type: ignore[arg-type]
        runs.append([micro for step in one.epoch(3) for micro in step])
    assert torch.equal(torch.get_rng_state(), before)
    assert len(runs[0]) == len(runs[1]) == 2  # the last two images are too few
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.labels, data.labels[a.index])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanished_is_one_sentence(tree: Path, workers: int) -> None:
    paths = sorted(tree.glob("train/*/*.png"))
    data = FileSource(paths, torch.zeros(6, dtype=torch.int64), ("cat",), root=tree)
    paths[2].unlink()
    views = FileViews(data, augment="none", size=16, seed=0)
    one = Loader(views, data.labels, batch=6, seed=0, shuffle=False, workers=workers)
    with pytest.raises(DataError, match=r"2\.png cannot be read") as error:
        list(one.epoch(0))
    assert "Traceback" not in str(error.value)


def test_images_that_fit_into_no_memory_are_refused_in_a_sentence() -> None:
    def show(index: Tensor, number: Tensor) -> Tensor:
        return torch.empty(len(index), 3, 2**30, 2**30)

    dataset = ViewDataset(show)
    response = dataset[torch.arange(2), torch.arange(2), None]
    assert isinstance(response, OutOfMemory)
    assert str(response).startswith("2 images do not fit into memory at once")
