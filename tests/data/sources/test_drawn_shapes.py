"""Drawn images: each a function of its number, with boxes around the shapes."""

import numpy as np
import pytest
import torch
from PIL import Image

from understudy.data.sources import drawn_shapes
from understudy.errors import DataError


def test_an_image_depends_on_its_number_alone() -> None:
    few, many = (drawn_shapes.load(count, "train") for count in ("3", "7"))
    assert (len(few), len(many)) == (3, 7)
    for i in range(3):
        assert torch.equal(few.image(i), many.image(i))
        assert torch.equal(few.target(i)["boxes"], many.target(i)["boxes"])
    assert len({many.image(i).numpy().tobytes() for i in range(7)}) == 7


def test_the_test_split_has_a_third_as_many_other_images() -> None:
    train, test = drawn_shapes.load("9", "train"), drawn_shapes.load("9", "test")
    images = [source.image(i).numpy().tobytes() for source in (train, test) for i in range(3)]
    assert (len(train), len(test), len(set(images))) == (9, 3, 6)


@pytest.mark.parametrize("number", range(8))
def test_boxes_lie_around_all_that_is_drawn_on_the_background(number: int) -> None:
    pixels, boxes, labels = drawn_shapes._draw_image(number)
    assert 1 <= len(boxes) == len(labels) <= 4
    background = drawn_shapes._background(np.random.default_rng(number))
    reduced = background.resize((drawn_shapes.SIDE,) * 2, Image.Resampling.BOX)
    changed = (pixels != torch.from_numpy(np.array(reduced)).permute(2, 0, 1)).any(0)
    rows, columns = changed.nonzero().unbind(1)
    extent = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    union = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])
    assert (extent - union).abs().max() < 1


def test_labels_and_areas_are_those_of_the_objects() -> None:
    source = drawn_shapes.load("12", "train")
    for i in range(12):
        target = source.target(i)
        assert source.labels[i].nonzero().flatten().tolist() == target["labels"].unique().tolist()
        boxes = target["boxes"].as_subclass(torch.Tensor)
        assert torch.equal(target["areas"], (boxes[:, 2:] - boxes[:, :2]).prod(1))
        assert not (target["difficult"] | target["crowd"]).any()


@pytest.mark.parametrize("root", ["2", "many", "-3"])
def test_a_root_that_is_no_number_of_images_is_refused(root: str) -> None:
    with pytest.raises(DataError, match=f"does not read data.root={root}: its images are drawn"):
        drawn_shapes.load(root, "train")
