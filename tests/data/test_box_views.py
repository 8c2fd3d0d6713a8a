"""Views of images with boxes: boxes, flags and areas go with the image."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from understudy.batch import Objects
from understudy.data import CLEAN, Loader, ObjectViews, Source
from understudy.data._transforms import Augment
from understudy.errors import DataError

Paint = Callable[..., Path]


class Squares(Source):
    """A white rectangle for every box, on black; the last image is background."""

    pixels, size, skipped = None, None, ()
    classes = ("a", "b")
    images_digest = "0" * 16
    sizes = ((40, 64), (64, 48), (40, 64), (64, 40), (50, 50))

    def __init__(self) -> None:
        self.labels = torch.tensor([[1, 0]] * 4 + [[0, 0]])

    def boxes(self, i: int) -> Tensor:
        both = torch.tensor([[4.0, 6, 20, 30], [24, 10, 38 - i, 38]])
        return both if i < 4 else both[:0]

    def image(self, i: int) -> Tensor:
        image = torch.zeros(3, *self.sizes[i], dtype=torch.uint8)
        for left, top, right, bottom in self.boxes(i).int().tolist():
            image[:, top:bottom, left:right] = 255
        return image

    def target(self, i: int) -> dict[str, Any]:
        boxes = self.boxes(i)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=self.sizes[i]),
            "labels": torch.arange(len(boxes)),
            "difficult": torch.tensor([True, False])[: len(boxes)],
            "crowd": torch.tensor([False, True])[: len(boxes)],
            # Of what fills a half of its box.
            "areas": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 2,
        }


EVERY = torch.arange(5)


def views(augment: Augment = "scale_jitter", *, seed: int = 0, jitter: float = 0.0) -> ObjectViews:
    return ObjectViews(Squares(), augment=augment, seed=seed, jitter=jitter)


def show(made: ObjectViews, number: int) -> tuple[Tensor, Objects]:
    return made(EVERY, torch.full_like(EVERY, number))


def same(one: tuple[Tensor, Objects], other: tuple[Tensor, Objects]) -> bool:
    ours, theirs = ([*images, *chain(*objects._fields())] for images, objects in (one, other))
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("augment", ["none", "flip", "scale_jitter"])
def test_the_clean_view_is_whole(augment: Augment) -> None:
    images, objects = show(views(augment, jitter=0.3), CLEAN)
    assert images.shape == (5, 3, 64, 64)
    assert objects.sizes.tolist() == [list(size) for size in Squares.sizes]
    for i, (height, width) in enumerate(Squares.sizes):
        assert torch.equal(images[i, :, :height, :width], Squares().image(i) / 255)
        assert not images[i, :, height:].any()
        assert not images[i, :, :, width:].any()
        assert torch.equal(objects.boxes[i], Squares().boxes(i))


@pytest.mark.parametrize("augment", ["flip", "scale_jitter"])
def test_a_view_depends_on_seed_image_and_number_alone(augment: Augment) -> None:
    made = views(augment, jitter=0.4)
    whole = show(made, 3)
    torch.manual_seed(7)
    assert same(whole, show(made, 3))
    alone = made(torch.tensor([2]), torch.tensor([3]))
    assert torch.equal(alone[0][0], whole[0][2, :, :40, :64])
    assert torch.equal(alone[1].boxes[0], whole[1].boxes[2])
    assert not same(whole, show(made, 4))
    assert not same(whole, show(views(augment, seed=1, jitter=0.4), 3))


def found(image: Tensor) -> list[int]:
    """The box around what is white in an image that holds nothing else."""
    rows, columns = (image[0] > 0.75).nonzero().unbind(1)
    return [int(x) for x in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize("augment", ["flip", "scale_jitter"])
def test_boxes_flags_and_areas_go_with_the_image(augment: Augment) -> None:
    seen, lost = set(), 0
    for number in range(40):
        images, objects = show(views(augment), number)
        assert objects.sizes.tolist() == [list(size) for size in Squares.sizes]
        for i, (boxes, labels) in enumerate(zip(objects.boxes, objects.labels, strict=True)):
            height, width = Squares.sizes[i]
            assert torch.equal(objects.difficult[i], labels == 0)
            assert torch.equal(objects.crowd[i], labels == 1)
            extents = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            assert torch.allclose(objects.areas[i], extents / 2, rtol=1e-4)
            assert (boxes >= 0).all()
            assert (boxes <= torch.tensor([width, height] * 2)).all()
            lost += 2 - len(boxes)
            large = (boxes[:, 2:] - boxes[:, :2] >= 6).all(1)
            for box in boxes[large].round().int().tolist():
                left, top, right, bottom = box
                inner = images[i, 0, top + 2 : bottom - 2, left + 2 : right - 2]
                assert (inner > 0.9).all()
                seen.add(tuple(box))
    # Only what is enlarged can lose an object, beside the image that has none.
    assert (lost > 2 * 40) == (augment == "scale_jitter")
    assert len(seen) > 40 or augment == "flip"


def test_a_picture_of_a_few_pixels_can_be_jittered() -> None:
    class Dots(Squares):
        sizes = ((1, 3),)

        def boxes(self, i: int) -> Tensor:
            return torch.tensor([[0.0, 0, 2, 1]])

    made = ObjectViews(Dots(), augment="scale_jitter", seed=0, jitter=0.0)
    for number in range(20):
        images, _ = made(torch.tensor([0]), torch.tensor([number]))
        assert images.shape == (1, 3, 1, 3)


@pytest.mark.parametrize("augment", ["crop_flip", "resized_crop", "squash_flip"])
def test_what_would_part_boxes_from_images_is_refused(augment: Augment) -> None:
    with pytest.raises(DataError, match="use one of: none, flip, scale_jitter"):
        views(augment)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_with_any_workers(workers: int) -> None:
    made = views(jitter=0.2)
    portrait = torch.tensor([height > width for height, width in Squares.sizes])
    loader = Loader(
        made, Squares().labels, batch=2, seed=1, shuffle=True, portrait=portrait, workers=workers
    )
    for (batch,) in loader.epoch(4):
        assert batch.objects is not None
        assert same((batch.images, batch.objects), made(batch.index, batch.view))
        assert torch.equal(batch.labels, Squares().labels[batch.index])
