"""Data of a program: its forms, what each becomes, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from understudy.data import MemorySource, Source
from understudy.data.own_data import OwnData
from understudy.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


class Items(Dataset[Any]):
    """Items as a list, and perhaps class names."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        item = self.items[i]
        return item() if callable(item) else item


def read(data: Any, split: Any = "train", faulty: str = "repair", **options: Any) -> Source:
    return OwnData(data, **options).source(split, unreadable="skip", faulty=faulty)


def pil(side: int = 8) -> list[Image.Image]:
    return [Image.fromarray(pixels).resize((side, side)) for pixels in PIXELS]


def huggingface() -> Any:
    import datasets

    features = datasets.Features(
        {"id": datasets.Value("int64"), "img": datasets.Image(),
         "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )  # fmt: skip
    columns = {"id": [9] * 6, "img": pil(), "label": LABELS}
    return datasets.Dataset.from_dict(columns, features=features)


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (PIXELS, np.array(LABELS)),
    "columns of labels": lambda: (PIXELS, np.array(LABELS)[:, None]),
    "tensors": lambda: (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor(LABELS)),
    "floats": lambda: (torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255, torch.tensor(LABELS)),
    "lists": lambda: (pil(), LABELS),
    "dataset of PIL": lambda: Items(list(zip(pil(), LABELS, strict=True)), ["a", "b", "c"]),
    "TensorDataset": lambda: TensorDataset(
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor(LABELS)
    ),
    "mappings": lambda: Items(
        [{"image": x, "label": y} for x, y in zip(pil(), LABELS, strict=True)]
    ),
    "Hugging Face": huggingface,
    "names": lambda: Items(list(zip(pil(), [*"abcabc"], strict=True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_and_labels(form: str) -> None:
    source = read(FORMS[form]())
    assert isinstance(source, MemorySource)
    assert torch.equal(source.pixels, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert source.labels.tolist() == LABELS
    assert source.classes in (("a", "b", "c"), ("0", "1", "2"))
    assert source.images_digest == read(FORMS["arrays"]()).images_digest


def test_large_images_are_read_when_they_are_needed() -> None:
    items = Items(list(zip(pil(70), LABELS, strict=True)))
    source = read(items)
    assert source.pixels is None
    assert source.size == 70
    assert source.image(3).shape == (3, 70, 70)
    assert source.sides().tolist() == [[70, 70]] * 6
    digest = source.images_digest
    assert digest == read(items, workers=2).images_digest
    items.items[3] = (pil(70)[0], 0)
    assert read(items).images_digest != digest
    with pytest.raises(DataError, match="is another one each time"):
        source.image(3)


def test_the_place_in_a_tuple_or_a_name_says_which_split_it_is() -> None:
    three = tuple((PIXELS[i : i + 2], LABELS[i : i + 2]) for i in (0, 2, 4))
    named = dict(zip(("train", "test", "val"), three, strict=True))
    for data in (three, named):
        own = OwnData(data)
        assert all(split in own for split in ("train", "test", "validation"))
        assert read(data, "test").labels.tolist() == [2, 0]
        assert read(data, "validation").labels.tolist() == [1, 2]
        assert len(read(data).classes) == 3
    items = list(zip(pil(), LABELS, strict=True))
    assert read((items[:4], items[4:]), "test").labels.tolist() == [1, 2]
    assert read((pil(), pil()[:2]), "test").labels.tolist() == [-1, -1]
    assert "test" not in OwnData((PIXELS, LABELS))
    assert "test" in OwnData((PIXELS, LABELS), alone="test")


def test_names_are_those_of_the_dataset_inside_or_of_a_trained_student() -> None:
    named = Items(list(zip(pil(), LABELS, strict=True)), ["x", "y", "z", "unseen"])
    for dataset in (Subset(named, [0, 1]), ConcatDataset([named, named])):
        assert read(dataset).classes == ("x", "y", "z", "unseen")
    assert read((PIXELS[:2], LABELS[:2]), classes=("p", "q", "r")).classes == ("p", "q", "r")
    assert read((PIXELS, LABELS), classes=("p", "q")).classes == ("0", "1", "2")


def test_images_without_a_label_or_with_several_classes() -> None:
    assert read(Items(pil())).labels.tolist() == [-1] * 6
    assert read(Items([(x, None if i else 1) for i, x in enumerate(pil())])).labels.tolist() == [
        1, *[-1] * 5,
    ]  # fmt: skip
    rows = [[1, 0, 1], [0, 0, 0], [1, -1, 0], None, [0, 1, 0], [1, 1, 1]]
    labels = read(Items(list(zip(pil(), rows, strict=True)))).labels
    assert labels.tolist() == [row or [-1] * 3 for row in rows]


def boxed(*boxes: list[float], labels: list[int] | None = None) -> list[Any]:
    """Two images: one with some boxes, one with a good one."""
    target = {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes)),
    }
    good = {"boxes": [[1, 1, 5, 6]], "labels": [2], "iscrowd": [1], "area": [7.0]}
    return [(pil()[0], target), (pil()[1], good)]


def test_boxes_of_torchvisions_form_count_classes_from_1() -> None:
    source = read(Items(boxed([0.0, 0, 4, 4], [2.0, 2, 8, 8]), ["__background__", "cat", "dog"]))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [[1, 0], [0, 1]]
    target = source.target(1)
    assert target["labels"].tolist() == [1]
    assert target["crowd"].tolist() == [True]
    assert target["areas"].tolist() == [7.0]
    assert source.target(0)["boxes"].tolist() == [[0, 0, 4, 4], [2, 2, 8, 8]]
    assert source.target(0)["areas"].tolist() == [16, 36]
    moved = read(Items(boxed([0.0, 0, 4, 4], [2.0, 2, 8, 7])))
    assert moved.targets_digest != source.targets_digest
    assert moved.images_digest == source.images_digest


def test_faulty_boxes_are_repaired_skipped_or_refused() -> None:
    items = Items(boxed([-3.0, 0, 4, 40], [2.0, 2, 2, 8]))
    source = read(items)
    assert source.target(0)["boxes"].tolist() == [[0, 0, 4, 8]]
    assert sum("clipped" in line or "without area" in line for line in source.skipped) == 2
    assert len(read(items, faulty="skip")) == 1
    assert len(read(Items(boxed([2.0, 2, 2, 8])))) == 1
    with pytest.raises(DataError, match="were clipped"):
        read(items, faulty="fail")


def test_items_that_cannot_be_read_are_skipped_and_counted() -> None:
    def broken() -> Any:
        raise OSError("truncated")

    items = [(x, i % 2) for i, x in enumerate(pil())]
    source = read(Items([broken, *items]))
    assert len(source) == 6
    assert source.skipped == ("image 0 of data= (train) cannot be read: OSError: truncated",)
    with pytest.raises(DataError, match=r"data.unreadable=skip"):
        OwnData(Items([broken, *items])).source("train", unreadable="fail", faulty="repair")
    with pytest.raises(DataError, match="None of the images"):
        read(Items([broken]))


def noise() -> Any:
    return torch.rand(3, 8, 8), 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([(x, 3.5) for x in pil()], "whole numbers from 0"),
        ([(x, -2) for x in pil()], "label -2; class numbers start from 0"),
        (Items([(x, 7) for x in pil()], ["a", "b"]), "the label 7, but 2 classes"),
        ([(x, [0, 2, 1]) for x in pil()], "3 values of 1 .present., 0 .absent."),
        ([(x, [1, -1, 1]) for x in pil()], "give 0 for an absent class"),
        ([(pil()[0], 1), (pil()[1], "a")], "several kinds"),
        ([(x, {"bbox": []}) for x in pil()], "must have 'boxes' and 'labels'"),
        (boxed([0.0, 0, 4, 4], labels=[0]), "they are from 1 to 2"),
        ([(x, 0, 1) for x in pil()], "comes in 3 values"),
        (["a.png"], "is a str; it must be a PIL image"),
        ((PIXELS, LABELS[:3]), "6 images and 3 labels"),
        ((torch.randn(6, 3, 8, 8) * 9, LABELS), "before they are normalised"),
        (Items([noise]), "another one each time it is asked for"),
        (iter([1]), "must be a dataset with len"),
        ([], "has no images"),
        ({"train": pil(), "extra": pil()}, "'extra', which is no split"),
        ((pil(), pil(), pil(), pil()), "tuple of 4"),
        ((Items([(pil()[0], 0)], ["a", "b"]), Items([(pil()[0], 0)], ["b", "a"])), "another order"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data)
