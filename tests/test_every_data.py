"""What holds for every data source, whatever its format."""

import json
import os
import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.own_cache import own_cache as own_cache
from tests.support.small_shards import parquet_files, shards
from understudy import data
from understudy.batch import UNLABELLED
from understudy.data.views import make_views
from understudy.errors import DataError, NameNotFound, UnderstudyError

# Read when `datasets` is first imported, which the source does lazily.
os.environ["HF_HUB_OFFLINE"] = "1"


def tree(root: Path, classes: int) -> str:
    """Folders `{train,test}/<class>/` of images that fit every source."""
    for split in ("train", "test"):
        for label in range(classes):
            folder = root / split / f"class{label:03d}"
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")
    return str(root)


def table(root: Path) -> str:
    tree(root, 2)
    files = sorted(root.glob("*/*/*.png"))
    lines = [f"{p.relative_to(root)},{p.parent.name},{p.parent.parent.name}" for p in files]
    (root / "all.csv").write_text("\n".join(["path,label,split", *lines]))
    return str(root / "all.csv")


def boxes(root: Path) -> str:
    """Two images with a box in train, and one in test."""
    for split, i in (("train", 0), ("train", 1), ("test", 2)):
        (root / split).mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / f"{i}.png")
    return str(root)


def xml(root: Path) -> str:
    boxes(root)
    corners = "".join(f"<{c}>{n}</{c}>" for c, n in zip(CORNERS, (2, 4, 20, 30), strict=True))
    for image in root.glob("*/*.png"):
        name = f"class{int(image.stem) % 2}"
        thing = f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
        image.with_suffix(".xml").write_text(f"<annotation>{thing}</annotation>")
    return str(root)


def json_file(root: Path) -> str:
    boxes(root)
    categories = [{"id": 3 * i + 1, "name": f"class{i}"} for i in range(2)]
    for split in ("train", "test"):
        names = sorted(path.name for path in (root / split).glob("*.png"))
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"image_id": i, "category_id": 3 * i + 1, "bbox": [2, 4, 18, 26]}
                for i in range(len(names))
            ],
            "categories": categories,
        }
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return str(root)


def text_files(root: Path) -> str:
    boxes(root)
    for image in root.glob("*/*.png"):
        image.with_suffix(".txt").write_text(f"{int(image.stem) % 2} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: train\ntest: test\nnames: [class0, class1]\n")
    return str(root)


CORNERS = ("xmin", "ymin", "xmax", "ymax")
LEARNT = ("coco", "voc")
"""Sources whose classes are those of the training files, unless they are given."""
FILES = (*LEARNT, "yolo")
"""Sources that read of boxes, which may be faulty or difficult."""
BOXES = (*FILES, "drawn_shapes")
"""Sources that know of boxes, and tell of every class whether it is in an image."""
NOWHERE = ("fashion", "drawn_shapes")
"""Sources that need no root."""

ROOTS: dict[str, Callable[[Path], str]] = {
    "cifar10": lambda root: tree(root, 10),
    "cifar100": lambda root: tree(root, 100),
    "coco": json_file,
    "csv": table,
    "fashion": lambda root: "",
    "folder": lambda root: tree(root, 2),
    "parquet": lambda root: str(parquet_files(root / "rows", {"train": 2, "test": 2}, side=32)),
    "webdataset": lambda root: str(shards(root / "shards", {"train": 2, "test": 2}, side=32)),
    "hf": lambda root: tree(root, 2),
    "drawn_shapes": lambda root: "6",
    "voc": xml,
    "yolo": text_files,
}


NAMES = sorted(ROOTS)
"""All sources but `python`, whose data a program gives: tests/data/test_own_data.py."""


def test_every_source_is_tried_here() -> None:
    assert data.names() == sorted([*ROOTS, "python"])


@pytest.mark.parametrize("name", [*NAMES, "python"])
def test_a_root_is_never_ignored(name: str) -> None:
    with pytest.raises(UnderstudyError):
        data.find(name).load("no/such/place", "train")


@pytest.mark.parametrize("unread", NOWHERE)
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(NOWHERE)))
def test_a_root_that_another_source_reads_is_refused_by_its_name(
    unread: str, name: str, tmp_path: Path
) -> None:
    root = ROOTS[name](tmp_path)
    reader = (
        name if name in (*FILES, "csv", "parquet", "webdataset") else "folder"
    )  # which reads the others too
    words = f"does not read data.root={re.escape(root)}: its .* Add --data.source {reader}, which"
    with pytest.raises(DataError, match=words):
        data.find(unread).load(root, "train")


@pytest.mark.parametrize("name", [*NAMES, "python"])
def test_module_describes_itself(name: str) -> None:
    module = data.find(name)
    first = (module.__doc__ or "").splitlines()[0]
    assert 20 < len(first) <= 100
    more = ["faulty", "difficult"] if name in (*FILES, "python") else []
    more += ["classes"] if name in LEARNT else []
    assert list(signature(module.load).parameters) == ["root", "split", "unreadable", *more]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", NAMES)
def test_source_keeps_the_contract(name: str, split: str, tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path)
    source = data.find(name).load(root, split)  # type: ignore[arg-type]
    assert source.labels.dtype == torch.int64
    classes = (len(source.classes),) if name in BOXES else ()
    assert source.labels.shape == (len(source), *classes)
    assert (source.target(0) is not None) == (name in BOXES)
    assert source.labels.min() >= UNLABELLED
    assert source.labels.max() < len(source.classes)
    assert source.skipped == ()
    image = source.image(len(source) - 1)
    side = 96 if name == "drawn_shapes" else 32
    assert (image.dtype, image.shape) == (torch.uint8, (3, side, side))
    assert source.size == side
    assert source.sides().tolist() == [[side, side]] * len(source)
    assert source.pixels is not None
    assert torch.equal(source.pixels[-1], image)
    again = data.find(name).load(root, split)  # type: ignore[arg-type]
    assert source.digest == again.digest
    assert len(bytes.fromhex(source.digest)) == 8


@pytest.mark.parametrize("name", LEARNT)
def test_known_classes_spare_the_training_files(name: str, tmp_path: Path) -> None:
    load, root = data.find(name).load, Path(ROOTS[name](tmp_path))
    train, test = load(str(root), "train"), load(str(root), "test")
    assert train.classes == test.classes == ("class0", "class1")
    (root / "train").rename(root / "elsewhere")
    told = load(str(root), "test", classes=train.classes)  # type: ignore[call-arg]
    assert (told.digest, told.skipped) == (test.digest, test.skipped)
    with pytest.raises(DataError):
        load(str(root), "test")


@pytest.mark.parametrize("name", NAMES)
def test_source_feeds_a_loader(name: str, tmp_path: Path) -> None:
    source = data.find(name).load(ROOTS[name](tmp_path), "train")
    views = make_views(source, augment="crop_flip", size=32, seed=0)
    loader = data.Loader(views, source.labels, batch=64, seed=0, shuffle=True)
    (batch,) = next(loader.epoch(0))
    assert batch.images.shape == (len(batch), 3, 32, 32)
    assert torch.equal(batch.labels, source.labels[batch.index])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOWHERE])
def test_missing_root_is_one_sentence(name: str) -> None:
    with pytest.raises(DataError, match=r"set data\.root"):
        data.find(name).load("", "train")


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(NameNotFound, match="did you mean 'cifar100'"):
        data.find("cifar-100")
