"""Views of images with boxes, their batches and order, and the choice of some of them."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from understudy import tasks
from understudy.batch import UNLABELLED, Batch, Objects
from understudy.config.recipe import Recipe
from understudy.data import CLEAN, Loader, ObjectViews, Source
from understudy.data._order import grouped_order
from understudy.data._transforms import Augment
from understudy.data.sources import coco
from understudy.data.subset import class_balanced, split
from understudy.errors import DataError, RecipeError, UnderstudyError
from understudy.experiment.images import read_images

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


class Several(Squares):
    """Many images, each with some of seven classes, rare ones among them."""

    classes = tuple("abcdefg")

    def __init__(self, images: int = 60, seed: int = 0) -> None:
        drawn = torch.rand(images, 7, generator=torch.Generator().manual_seed(seed))
        self.labels = (drawn < torch.tensor([0.04, 0.06, 0.1, 0.2, 0.3, 0.5, 0.9])).long()
        self.labels[::9, 6] = UNLABELLED


def kept(source: Source) -> list[int]:
    return source.index.tolist()  # type: ignore[attr-defined,no-any-return]


@given(images=st.integers(1, 50), seed=st.integers(0, 99))
def test_some_images_lie_in_more(images: int, seed: int) -> None:
    small, large = (class_balanced(Several(), images=n, seed=seed) for n in (images, images + 9))
    assert len(small) == images
    assert set(kept(small)) < set(kept(large))
    assert torch.equal(small.labels, Several().labels[small.index])  # type: ignore[attr-defined]


def test_some_labels_are_hidden_image_by_image() -> None:
    part = class_balanced(Several(), labels=20, seed=0)
    assert len(part) == 60
    assert int(part.labelled.sum()) == 20
    assert torch.equal(part.labels[part.labelled], Several().labels[part.labelled])
    for asked in ({"images": 61}, {"labels": 61}):
        with pytest.raises(DataError, match="61 images are requested, but there are only 60"):
            class_balanced(Several(), seed=0, **asked)


@given(share=st.floats(0.15, 0.8), seed=st.integers(0, 99))
def test_every_class_is_in_both_parts(share: float, seed: int) -> None:
    whole = Several(seed=seed)
    train, held = split(whole, share, seed=seed)
    assert sorted(kept(train) + kept(held)) == list(range(60))
    assert abs(len(held) - share * 60) <= 8
    counts = [(each.labels == 1).sum(0) for each in (whole, train, held)]
    for all_, ours, theirs in zip(*(each.tolist() for each in counts), strict=True):
        assert all_ < 2 or (ours >= 1 and theirs >= 1)
    assert kept(held) == kept(split(whole, share, seed=seed)[1])


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001, -1.0])
def test_useless_shares_of_several_classes_are_refused(share: float) -> None:
    class Alike(Several):
        def __init__(self) -> None:
            self.labels = torch.zeros(20, 7, dtype=torch.int64)

    with pytest.raises(DataError, match=r"choose a data\.validation between 0 and 1"):
        split(Alike(), share, seed=0)


def test_mixed_batches_count_images_not_classes() -> None:
    part = class_balanced(Several(), labels=20, seed=0)
    made = ObjectViews(part, augment="none", seed=0, jitter=0.0)
    loader = Loader(made, part.labels, batch=8, seed=0, shuffle=True, labelled_share=0.5)
    index, _ = loader.epoch_order(0)
    shares = part.labelled[index].view(-1, 8).sum(1)
    assert shares.tolist() == [4] * len(shares)


@pytest.fixture
def boxed(tmp_path: Path, paint: Paint) -> str:
    """Four images with boxes, one of them faulty."""
    names = [paint(f"train/{i}.png", seed=i).name for i in range(4)]
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "category_id": i % 2, "bbox": [2, 4, 90 if i == 3 else 30, 26]}
            for i in range(4)
        ],
        "categories": [{"id": i, "name": f"class{i}"} for i in range(2)],
    }
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps(content))
    return str(tmp_path)


def sources(task: str, **data: Any) -> Any:
    asked = Recipe.from_dict({"task": task, "data": {"validation": 0.5} | data})
    both = read_images(asked, tasks.find(task))
    return both.train, both.test


def test_the_recipe_chooses_what_becomes_of_faulty_boxes(boxed: str) -> None:
    train, held = sources("detection", source="coco", root=boxed)
    assert len(train) + len(held) == 4
    assert (train.labels == 1).any(0).all()
    assert (held.labels == 1).any(0).all()
    assert len(train.skipped) == 1
    train, held = sources("multilabel", source="coco", root=boxed, faulty="skip")
    assert len(train) + len(held) == 3
    with pytest.raises(DataError, match="partly outside of the image"):
        sources("detection", source="coco", root=boxed, faulty="fail")
    assert coco.load(boxed, "train").labels.tolist() == [[1, 0], [0, 1]] * 2


@pytest.mark.parametrize(
    ("task", "data", "error", "message"),
    [
        ("classification", {"source": "coco"}, DataError, "'classification' needs the one class"),
        ("multilabel", {"source": "fashion"}, DataError, "needs the presence of each class"),
        ("detection", {"source": "fashion"}, DataError, "'detection' needs boxes of the objects"),
        ("detection", {"source": "coco", "labels": 2}, RecipeError, "hide some, but no boxes"),
        ("detection", {"source": "coco", "labelled_share": 0.5}, RecipeError, "all boxes are"),
        ("detection", {"source": "coco", "size": 64}, RecipeError, "by its own options: leave it"),
        (
            "classification",
            {"source": "fashion", "faulty": "fail"},
            RecipeError,
            r"data\.faulty=fail is about boxes, which the source 'fashion' does not read",
        ),
    ],
)
def test_a_task_refuses_images_that_do_not_tell(
    boxed: str, task: str, data: dict[str, Any], error: type[UnderstudyError], message: str
) -> None:
    root = boxed if data["source"] == "coco" else ""
    with pytest.raises(error, match=message):
        sources(task, root=root, **data)


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
