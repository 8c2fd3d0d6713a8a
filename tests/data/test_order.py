"""Batches of one orientation; the other orders are tested through the loader."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.data._order import grouped_order


@given(
    portrait=st.lists(st.booleans(), min_size=1, max_size=60),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_batches_hold_one_shape(portrait: list[bool], batch: int, seed: int, epoch: int) -> None:
    kinds = torch.tensor(portrait)
    index, view = grouped_order(kinds, batch=batch, seed=seed, epoch=epoch)
    assert index.sort().values.tolist() == list(range(len(portrait)))
    assert view.tolist() == [epoch] * len(portrait)
    both = [len(part.unique()) == 2 for part in kinds[index].split(batch)]
    assert sum(both) <= 1
    assert torch.equal(index, grouped_order(kinds, batch=batch, seed=seed, epoch=epoch)[0])


def test_another_epoch_has_another_order() -> None:
    kinds = torch.arange(40) % 3 == 0
    orders = {tuple(grouped_order(kinds, batch=4, seed=0, epoch=e)[0].tolist()) for e in range(5)}
    first = {bool(kinds[grouped_order(kinds, batch=4, seed=0, epoch=e)[0][0]]) for e in range(20)}
    assert (len(orders), first) == (5, {True, False})
