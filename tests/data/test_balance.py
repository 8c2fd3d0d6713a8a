"""Class-balanced sampling: exact counts, even use of every image, no view twice, any restart."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.data.test_views import source
from understudy.config.recipe import Recipe
from understudy.data import Loader, MemoryViews
from understudy.data._balance import Pools
from understudy.data._order import balanced_order
from understudy.errors import RecipeError

RARE = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
SEVERAL = torch.tensor([[1, 0, 0]] * 30 + [[1, 1, 0]] * 4 + [[0, 0, 1]] * 3 + [[0, 0, 0]] * 11)


def epochs(labels: Tensor, balance: float, count: int) -> list[tuple[Tensor, Tensor]]:
    return [balanced_order(labels, balance=balance, seed=4, epoch=e) for e in range(count)]


@pytest.mark.parametrize(
    ("balance", "counts"), [(1.0, [20, 20, 20]), (0.5, [30, 19, 11]), (1e-9, [40, 15, 5])]
)
def test_the_balance_gives_the_draws_of_each_class(balance: float, counts: list[int]) -> None:
    for index, _ in epochs(RARE, balance, 3):
        assert torch.bincount(RARE[index]).tolist() == counts


@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=50),
    balance=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_every_image_of_a_class_is_shown_equally_often_in_new_views(
    labels: list[int], balance: float, seed: int
) -> None:
    classes, shown = torch.tensor(labels), Counter()
    orders = [balanced_order(classes, balance=balance, seed=seed, epoch=e) for e in range(4)]
    for index, view in orders:
        assert len(index) == len(labels)
        shown.update(zip(index.tolist(), view.tolist(), strict=True))
    assert set(shown.values()) == {1}
    times = Counter(i for i, _ in shown)
    for label in set(labels):
        of_class = [times[i] for i, other in enumerate(labels) if other == label]
        assert max(of_class) - min(of_class) <= 1
        if label == -1:
            assert set(of_class) == {4}


def test_images_of_several_classes_are_drawn_for_each() -> None:
    pools = Pools(SEVERAL, balance=1.0, total=48)
    assert dict(zip(pools.classes, pools.draws, strict=True)) == {0: 12, 1: 12, 2: 12, -1: 12}
    shown = Counter()
    for index, view in epochs(SEVERAL, 1.0, 5):
        shown.update(zip(index.tolist(), view.tolist(), strict=True))
        assert int(SEVERAL[index][:, 1].sum()) >= 12
        assert int((SEVERAL[index].sum(1) == 0).sum()) == 12
    assert set(shown.values()) == {1}


def loader(**options: object) -> Loader:
    pixels = source(60, 4).pixels
    views = MemoryViews(pixels, augment="flip", size=4, seed=0)
    return Loader(views, options.pop("labels", RARE), batch=8, seed=1, shuffle=True, **options)  # type: ignore[arg-type]


def rows(made: Loader, start: int = 0) -> list[list[tuple[int, int]]]:
    return [
        [pair for b in step for pair in zip(b.index.tolist(), b.view.tolist(), strict=True)]
        for step in made.epoch(3, start=start)
    ]


def test_a_restart_and_any_number_of_processes_give_the_same_batches() -> None:
    whole = rows(loader(balance=1.0))
    assert rows(loader(balance=1.0), start=4) == whole[4:]
    ranks = [rows(loader(balance=1.0, rank=rank, world=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert sorted(batch) == sorted(pair for part in parts for pair in part)
    assert rows(loader()) == rows(loader(balance=0.0)) != whole


def test_the_labelled_share_of_a_batch_is_balanced_too() -> None:
    hidden = RARE.clone()
    hidden[::2] = -1
    made = loader(labels=hidden, labelled_share=0.75, balance=1.0)
    batches = [labels for step in made.epoch(0) for labels in [step[0].labels]]
    assert {int((labels >= 0).sum()) for labels in batches} == {6}
    drawn = torch.cat(batches)
    counts = torch.bincount(drawn[drawn >= 0])
    assert counts.max() - counts.min() <= 1
    assert made.draws() == {0: (20, 16), 1: (7, 16), 2: (3, 16)}


def test_batches_of_one_orientation_hold_balanced_classes() -> None:
    made = loader(balance=1.0, portrait=torch.arange(60) % 3 == 0)
    index, _ = made.epoch_order(0)
    plain, _ = loader(balance=1.0).epoch_order(0)
    assert sorted(index.tolist()) == sorted(plain.tolist())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"task": "none", "data": {"balance": 1}}, "task none does not use"),
        (
            {"data": {"balance": 0.5}, "training": {"class_weights": "balanced"}},
            "choose one of the two",
        ),
    ],
)
def test_what_has_no_sense_is_refused(recipe: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_dict(recipe)
