"""Batches from a loader of one's own."""

from typing import Any

import pytest
import torch

from understudy.batch import Batch
from understudy.errors import DataError


@pytest.mark.parametrize("stacked", [True, False])
def test_targets_of_ones_own_loop_go_with_images_in_a_list_or_a_tensor(stacked: bool) -> None:
    images = torch.rand(2, 3, 8, 9)
    target = {"boxes": torch.tensor([[1.0, 2, 5, 8]]), "labels": torch.tensor([3])}
    batch = Batch.of(images if stacked else [*images], [target] * 2)
    assert batch.objects is not None
    assert [x.tolist() for x in batch.objects.labels] == [[2], [2]]
    assert batch.objects.sizes.tolist() == [[8, 9]] * 2
    assert torch.equal(batch.images, images)


@pytest.mark.parametrize("labels", [[3, 4], torch.tensor([3, 4])])
def test_labels_of_another_kind_are_refused_rather_than_left_out(labels: Any) -> None:
    images = torch.rand(2, 3, 8, 9)
    with pytest.raises(DataError, match=r"Labels must be one tensor .* the first is .*3"):
        Batch.of(images if isinstance(labels, list) else [*images], labels)


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_of_no_images_none_are_labelled(shape: tuple[int, ...]) -> None:
    batch = Batch.of(torch.zeros(0, 3, 8, 8), torch.zeros(shape, dtype=torch.long))
    assert batch.labelled.shape == (0,)


def test_parts_of_one_size_hold_every_image_once() -> None:
    sizes = [(4, 6), (5, 5), (4, 6), (6, 4)]
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}
    batch = Batch.of([torch.rand(3, *size) for size in sizes], [none] * 4)
    parts = batch.by_size()
    assert sorted(part.index.tolist() for part in parts) == [[0, 2], [1], [3]]
    assert all(len(part.objects.sizes.unique(dim=0)) == 1 for part in parts if part.objects)
    assert Batch.of(torch.rand(2, 3, 4, 4)).by_size()[0].index.tolist() == [0, 1]
