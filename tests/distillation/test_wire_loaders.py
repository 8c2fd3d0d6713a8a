"""Loaders for `prepare` and targets of detectors: forms that are read, and refusals of others."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tests.distillation.small_networks import images, network, pair
from understudy.batch import Batch
from understudy.distillation import memory_parts
from understudy.distillation.distiller import Distiller
from understudy.distillation.wire import wire
from understudy.errors import DataError, OutOfMemory

IMAGES = images(8, 3, 16, 16)
LABELS = torch.arange(8) % 4


class Stream(IterableDataset[Any]):
    """Images of unknown number."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(IMAGES, LABELS, strict=True)


def wired(methods: dict[str, Any]) -> Distiller:
    return wire(*pair(), methods, example=IMAGES, seed=0)


def measured(loader: Any) -> Tensor:
    distiller = wired({"nd": 1, "lshfm": 1})
    distiller.prepare(loader)
    result: Tensor = distiller.trainable.methods["nd"].class_means
    return result


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(TensorDataset(IMAGES, LABELS), 4),
        DataLoader(Stream(), 4),
        [{"image": IMAGES[:4], "label": LABELS[:4]}, {"image": IMAGES[4:], "label": LABELS[4:]}],
        [{"pixel_values": IMAGES, "labels": LABELS}],
        [(IMAGES[:3], LABELS[:3]), [IMAGES[3:], LABELS[3:]]],
        [Batch.of(IMAGES, LABELS)],
    ],
    ids=["loader", "stream", "mappings", "hugging-face", "pairs", "batches"],
)
def test_loaders_of_every_form_measure_the_same(loader: Any) -> None:
    assert torch.allclose(measured(loader), measured([(IMAGES, LABELS)]), atol=1e-6)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([(IMAGES, LABELS, LABELS)], "gives a tuple of 3; it must give .images, labels."),
        ([{"x": IMAGES, "y": LABELS}], "a mapping with the keys 'x', 'y'; it must give"),
        (["a path"], "gives a str; it must give"),
        ([], "no images to measure the teacher on"),
        (iter([(IMAGES, LABELS)]), "an iterator can be read only once"),
        (7, "needs a loader that yields .* not a int"),
    ],
)
def test_loaders_of_other_forms_are_refused_with_the_form(loader: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measured(loader)


def test_images_without_labels_are_read_from_one_element_batches() -> None:
    distiller = wired({"lshfm": {"selective": False}})
    distiller.prepare(DataLoader(TensorDataset(IMAGES), 4))
    assert distiller.trainable.methods["lshfm"].prepared


def test_a_distiller_in_bfloat16_measures_and_compares_in_full_precision() -> None:
    distiller = wired({"lshfm": 1, "nd": 1, "kd": 1}).bfloat16()
    distiller.prepare([(IMAGES, LABELS)])
    assert distiller.trainable.methods["lshfm"].hash_weight.dtype == torch.float32
    assert next(distiller.student.parameters()).dtype == torch.bfloat16
    full = wired({"lshfm": 1, "nd": 1, "kd": 1})
    full.prepare([(IMAGES, LABELS)])
    losses, expected = distiller(IMAGES, LABELS), full(IMAGES, LABELS)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert torch.allclose(loss, expected[name], rtol=0.05, atol=0.02)
    distiller.total(losses).backward()


def short_of_memory(distiller: Distiller, most: int) -> None:
    """Let the teacher's memory run out above so many images."""

    def check(_: Any, args: tuple[Tensor]) -> None:
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert distiller.teacher is not None
    distiller.teacher.network.module.register_forward_pre_hook(check)


def test_measuring_goes_on_in_parts_that_fit_into_memory(log: pytest.LogCaptureFixture) -> None:
    whole, parts = wired({"lshfm": 1}), wired({"lshfm": 1})
    short_of_memory(parts, 3)
    for distiller in (whole, parts):
        distiller.prepare([(IMAGES, LABELS)])
    ours, theirs = (d.trainable.methods["lshfm"].state_dict() for d in (whole, parts))
    assert all(torch.allclose(x, theirs[name], atol=1e-5) for name, x in ours.items())
    assert [message.split(";")[0] for message in log.messages] == [
        "Memory ran out while measuring the teacher with 8 images at a time",
        "Memory ran out while measuring the teacher with 4 images at a time",
    ]


def test_parts_of_one_image_that_do_not_fit_are_refused() -> None:
    distiller = wired({"lshfm": 1})
    short_of_memory(distiller, 0)
    with pytest.raises(OutOfMemory, match="Not even one image fits into memory for measuring"):
        distiller.prepare([(IMAGES, LABELS)])


def test_other_errors_are_no_lack_of_memory() -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        list(memory_parts.MemoryParts("evaluating")(Batch.of(IMAGES), fail))
    assert network()(IMAGES).shape == (8, 4)
