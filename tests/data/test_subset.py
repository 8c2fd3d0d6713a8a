import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.batch import UNLABELLED
from understudy.data import MemorySource, Source
from understudy.data.subset import Subset, class_balanced, split
from understudy.errors import DataError


def source(per_class: int = 12, classes: int = 4, unlabelled: int = 0) -> MemorySource:
    labels = torch.arange(per_class * classes) % classes
    labels = torch.cat([labels, torch.full((unlabelled,), UNLABELLED)])
    pixels = torch.arange(len(labels)).to(torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    return MemorySource(pixels, labels, tuple("abcdefgh"[:classes]))


def numbers(part: Source) -> list[int]:
    assert part.pixels is not None
    assert all(torch.equal(part.image(i), part.pixels[i]) for i in range(len(part)))
    return part.pixels[:, 0, 0, 0].tolist()


@given(images=st.integers(4, 48), seed=st.integers(0, 2**31))
def test_images_are_balanced_and_keep_their_labels(images: int, seed: int) -> None:
    part = class_balanced(source(), images=images, seed=seed)
    counts = torch.bincount(part.labels, minlength=4)
    assert len(part) == images
    assert counts.max() - counts.min() <= 1
    assert numbers(part) == sorted(set(numbers(part)))
    assert part.labels.tolist() == [n % 4 for n in numbers(part)]


@given(st.integers(4, 40), st.integers(0, 100))
def test_a_smaller_choice_lies_in_a_larger_one(images: int, seed: int) -> None:
    small, large = (class_balanced(source(), images=n, seed=seed) for n in (images, images + 5))
    assert set(numbers(small)) < set(numbers(large))


@given(labels=st.integers(0, 24), seed=st.integers(0, 100))
def test_hidden_labels_leave_all_images(labels: int, seed: int) -> None:
    part = class_balanced(source(), images=24, labels=labels, seed=seed)
    known = part.labels != UNLABELLED
    counts = torch.bincount(part.labels[known], minlength=4)
    assert (len(part), int(known.sum())) == (24, labels)
    assert counts.max() - counts.min() <= 1
    assert all(
        n % 4 == c for n, c in zip(numbers(part), part.labels.tolist(), strict=True) if c >= 0
    )


def test_nothing_asked_changes_nothing() -> None:
    whole = source()
    assert class_balanced(whole, seed=0) is whole


def test_an_unlabelled_source_can_be_cut() -> None:
    part = class_balanced(source(classes=0, unlabelled=30), images=7, seed=0)
    assert part.labels.tolist() == [UNLABELLED] * 7


@pytest.mark.parametrize(("images", "labels"), [(60, None), (None, 50), (8, 9)])
def test_more_than_there_is(images: int | None, labels: int | None) -> None:
    with pytest.raises(DataError, match="class 'a' has only"):
        class_balanced(source(), images=images, labels=labels, seed=0)


@given(st.floats(0.1, 0.9), st.integers(0, 100))
def test_split_is_stratified_and_complete(share: float, seed: int) -> None:
    whole = source(unlabelled=10)
    train, held = split(whole, share, seed=seed)
    assert sorted(numbers(train) + numbers(held)) == list(range(len(whole)))
    counts = [int((held.labels == c).sum()) for c in range(4)]
    assert counts == [round(share * 12)] * 4
    assert int((held.labels == UNLABELLED).sum()) == round(share * 10)


def test_choice_and_split_follow_the_seed() -> None:
    for a, b in (
        [class_balanced(source(), images=20, seed=s) for s in (0, 1)],
        [split(source(), 0.5, seed=s)[1] for s in (0, 1)],
    ):
        assert numbers(a) != numbers(b)
        assert a.digest != b.digest
    assert split(source(), 0.5, seed=3)[1].digest == split(source(), 0.5, seed=3)[1].digest


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01, 1.5, -1.0])
def test_useless_shares_are_refused(share: float) -> None:
    with pytest.raises(DataError, match=r"choose a data\.validation between 0 and 1"):
        split(source(), share, seed=0)


def several(images: int = 60, seed: int = 0) -> MemorySource:
    """Images with some of seven classes each, rare ones among them."""
    random = torch.rand(images, 7, generator=torch.Generator().manual_seed(seed))
    labels = (random < torch.tensor([0.04, 0.06, 0.1, 0.2, 0.3, 0.5, 0.9])).long()
    labels[::9, 6] = UNLABELLED
    pixels = torch.zeros(images, 3, 2, 2, dtype=torch.uint8)
    return MemorySource(pixels, labels, tuple("abcdefg"))


def kept(part: Source) -> list[int]:
    assert isinstance(part, Subset)
    return part.index.tolist()


@given(images=st.integers(1, 50), seed=st.integers(0, 99))
def test_some_images_lie_in_more(images: int, seed: int) -> None:
    small, large = (class_balanced(several(), images=n, seed=seed) for n in (images, images + 9))
    assert len(small) == images
    assert set(kept(small)) < set(kept(large))
    assert torch.equal(small.labels, several().labels[small.index])  # type: ignore[attr-defined]


def test_some_labels_are_hidden_image_by_image() -> None:
    part = class_balanced(several(), labels=20, seed=0)
    assert len(part) == 60
    assert int(part.labelled.sum()) == 20
    assert torch.equal(part.labels[part.labelled], several().labels[part.labelled])
    for asked in ({"images": 61}, {"labels": 61}):
        with pytest.raises(DataError, match="61 images are requested, but there are only 60"):
            class_balanced(several(), seed=0, **asked)


@given(share=st.floats(0.15, 0.8), seed=st.integers(0, 99))
def test_every_class_is_in_both_parts(share: float, seed: int) -> None:
    whole = several(seed=seed)
    train, held = split(whole, share, seed=seed)
    assert sorted(kept(train) + kept(held)) == list(range(60))
    assert abs(len(held) - share * 60) <= 8
    counts = [(each.labels == 1).sum(0) for each in (whole, train, held)]
    for all_, ours, theirs in zip(*(each.tolist() for each in counts), strict=True):
        assert all_ < 2 or (ours >= 1 and theirs >= 1)
    assert kept(held) == kept(split(whole, share, seed=seed)[1])


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001, -1.0])
def test_useless_shares_of_several_classes_are_refused(share: float) -> None:
    alike = MemorySource(torch.zeros(20, 3, 2, 2, dtype=torch.uint8), torch.zeros(20, 7).long(), ())
    with pytest.raises(DataError, match=r"choose a data\.validation between 0 and 1"):
        split(alike, share, seed=0)
