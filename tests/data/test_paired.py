"""Views of images with targets: several labels, boxes, masks; whatever shows them, in any order."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from understudy.data import CLEAN, FileViews, MemorySource, Source
from understudy.data.subset import Subset
from understudy.data.views import Augment

SIDE, IMAGES = 40, 6


class Scenes(Source):
    """A white rectangle on black in every image, its box, its mask, and two labels."""

    pixels = None
    classes = ("scene",)
    size = None
    skipped = ()
    images_digest = "0" * 16

    def __init__(self) -> None:
        self.labels = torch.zeros(IMAGES, dtype=torch.int64)

    def image(self, i: int) -> torch.Tensor:
        left, top, right, bottom = self.box(i)
        image = torch.zeros(3, SIDE, SIDE + 8, dtype=torch.uint8)
        image[:, top:bottom, left:right] = 255
        return image

    def box(self, i: int) -> tuple[int, int, int, int]:
        return 4 + i, 6, 20 + 2 * i, 30

    def target(self, i: int) -> dict[str, Any]:
        return {
            "boxes": tv_tensors.BoundingBoxes(
                [self.box(i)], format="XYXY", canvas_size=(SIDE, SIDE + 8)
            ),
            "mask": tv_tensors.Mask(self.image(i)[0] // 255),
            "labels": torch.tensor([1, 0, i % 2], dtype=torch.uint8),
        }


def views(seed: int = 0, transform: Any = None, augment: Augment = "resized_crop") -> FileViews:
    return FileViews(Scenes(), augment=augment, size=16, seed=seed, transform=transform)


GEOMETRY = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(32), v2.Resize((16, 16))])


def same(a: Any, b: Any) -> bool:
    """Whether two pairs are equal in every number."""
    (image, target), (other, others) = a, b
    return torch.equal(image, other) and all(torch.equal(target[k], others[k]) for k in target)


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 9)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    custom=st.booleans(),
)
def test_a_pair_depends_on_nothing_but_its_numbers(
    rows: list[tuple[int, int]], seed: int, custom: bool
) -> None:
    made = views(seed, GEOMETRY if custom else None)
    together = made.paired(*torch.tensor(rows).T)
    alone = [made.paired(torch.tensor([i]), torch.tensor([v]))[0] for i, v in reversed(rows)]
    assert all(same(a, b) for a, b in zip(together, alone[::-1], strict=True))


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip", "resized_crop"])
@pytest.mark.parametrize("view", [CLEAN, 0, 3])
def test_the_image_of_a_pair_is_the_view(augment: Augment, view: int) -> None:
    made, index = views(augment=augment), torch.arange(IMAGES)
    number = torch.full_like(index, view)
    paired = torch.stack([image for image, _ in made.paired(index, number)])
    assert type(paired) is torch.Tensor
    assert torch.equal(paired, made(index, number))


def test_boxes_and_masks_go_with_the_image_and_labels_stay() -> None:
    made = views(transform=GEOMETRY)
    moved = set()
    for number in range(20):
        ((image, target),) = made.paired(torch.tensor([2]), torch.tensor([number]))
        assert torch.equal(target["labels"], torch.tensor([1, 0, 0], dtype=torch.uint8))
        assert target["mask"].shape == image.shape[1:] == (16, 16)
        assert (target["mask"].bool() == (image[0] > 0.5)).float().mean() > 0.9
        rows, columns = (image[0] > 0.5).nonzero().unbind(1)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (target["boxes"][0] - torch.stack(seen)).abs().max() <= 1
        moved.add(tuple(target["boxes"][0].tolist()))
    assert len(moved) > 10


def test_the_sources_own_targets_are_left_alone() -> None:
    class Kept(Scenes):
        def target(self, i: int) -> dict[str, Any]:
            return kept[i]

    kept = [Scenes().target(i) for i in range(IMAGES)]
    FileViews(Kept(), augment="resized_crop", size=16, seed=0).paired(
        torch.arange(IMAGES), torch.arange(IMAGES)
    )
    assert all(
        same((k["mask"], k), (t["mask"], t))
        for k, t in zip(kept, map(Scenes().target, range(IMAGES)), strict=True)
    )


def test_a_source_without_targets_has_none() -> None:
    source = MemorySource(Scenes().image(0)[None, :, :, :SIDE], torch.tensor([0]), ("a",))
    made = FileViews(source, augment="resized_crop", size=16, seed=0)
    ((image, target),) = made.paired(torch.tensor([0]), torch.tensor([0]))
    assert target is None
    assert image.shape == (3, 16, 16)


def test_a_subset_has_its_own_targets() -> None:
    part = Subset(Scenes(), torch.tensor([3]), torch.tensor([0]))
    assert torch.equal(part.target(0)["boxes"], Scenes().target(3)["boxes"])


class Pairs(Dataset[Any]):
    """Pairs by (image, view), as a worker process makes them."""

    def __getitem__(self, row: tuple[int, int]) -> Any:
        return views(transform=GEOMETRY).paired(*torch.tensor([row]).T)[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_pair(workers: int) -> None:
    rows = [(i, v) for v in range(2) for i in (3, 0, 5)]
    shown = DataLoader(
        Pairs(), sampler=rows, batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    assert all(same(a, Pairs()[row]) for a, row in zip(shown, rows, strict=True))
