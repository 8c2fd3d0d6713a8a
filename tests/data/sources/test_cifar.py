import pickle
import shutil
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from understudy.data.sources import NoSplit, cifar10, cifar100
from understudy.errors import DataError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A tiny unpacked archive in the official format; gives its training images."""
    images = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
    batch = {"data": images, "labels": list(range(10))}
    contents = {"data_batch_1": batch, "test_batch": batch, "batches.meta": {"label_names": NAMES}}
    sums, place = {}, tmp_path / "root" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name, content in contents.items():
        (place / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((place / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return images


def test_torchvisions_own_format(tmp_path: Path, archive: np.ndarray) -> None:
    source = cifar10.load(str(tmp_path / "root"), "train")
    assert source.classes == tuple(NAMES)
    assert source.labels.tolist() == list(range(10))
    assert source.pixels is not None
    assert torch.equal(source.pixels, torch.from_numpy(archive).view(10, 3, 32, 32))
    assert len(cifar10.load(str(tmp_path / "root"), "test")) == 10


def test_folders_of_images(tmp_path: Path, paint: Callable[..., Path]) -> None:
    for split in ("train", "test"):
        for i, name in enumerate(NAMES):
            paint(f"{split}/{name}/{i}.webp", seed=i, size=(32, 32))
    source = cifar10.load(str(tmp_path), "test")
    assert source.classes == tuple(NAMES)
    assert source.pixels is not None
    assert source.pixels.shape == (10, 3, 32, 32)
    with pytest.raises(DataError, match="10 classes, and 100 of 32×32 pixels are expected"):
        cifar100.load(str(tmp_path), "test")


def test_offline_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"CIFAR10 is not in .* and cannot be downloaded"):
        cifar10.load(str(tmp_path / "root"), "train")


def test_no_root() -> None:
    with pytest.raises(DataError, match=r"CIFAR100 needs a folder; set data\.root"):
        cifar100.load("", "train")


def test_a_validation_folder_is_the_validation_split(
    tmp_path: Path, paint: Callable[..., Path]
) -> None:
    for number in range(10):
        for split in ("train", "valid", "test"):
            paint(f"{split}/{number}/a.png", seed=number, size=(32, 32))
    assert len(cifar10.load(str(tmp_path), "validation")) == 10
    assert cifar10.load(str(tmp_path), "validation").split_name == "valid"
    shutil.rmtree(tmp_path / "test")
    assert cifar10.load(str(tmp_path), "test").split_name == "valid"
    with pytest.raises(NoSplit, match="no validation split beside a test split"):
        cifar10.load(str(tmp_path), "validation")
