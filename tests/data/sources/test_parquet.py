"""Images in parquet files: read by row groups, by an index of their labels."""

import sys
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch

from tests.support.small_shards import parquet_files
from understudy.data import Loader, Source
from understudy.data.sources import parquet
from understudy.data.views import make_views
from understudy.errors import DataError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return parquet_files(tmp_path / "rows", {"train": 13, "validation": 3})


def greys(source: Source) -> list[int]:
    return [int(source.image(i).min()) // 4 for i in range(len(source))]


def test_images_and_the_names_of_classes(top: Path) -> None:
    train, test = parquet.load(str(top), "train"), parquet.load(str(top), "test")
    assert (greys(train), greys(test)) == (list(range(13)), list(range(3)))
    assert train.classes == test.classes == ("zebra", "ant")
    assert train.labels.tolist() == [i % 2 for i in range(13)]
    assert train.shards is not None
    assert train.shards.tolist() == [0, 2, 4, 5, 7, 9, 10, 12, 13]  # the row groups
    assert (train.size, train.pixels) == (72, None)


def test_columns_of_bytes_and_names(tmp_path: Path) -> None:
    folder = parquet_files(tmp_path / "rows", {"train": 3}, typed=False)
    source = parquet.load(str(folder), "train")
    assert greys(source) == [0, 1, 2]
    assert (source.classes, source.labels.tolist()) == (("ant", "zebra"), [1, 0, 1])


def test_a_changed_file_is_indexed_again(top: Path) -> None:
    before = parquet.load(str(top), "train")
    parquet_files(top, {"train": 5}, group=3)
    after = parquet.load(str(top), "train")
    assert after.shards is not None
    assert after.shards.tolist() == [0, 3, 5, 7, 9, 10, 12, 13]
    assert after.digest != before.digest


@pytest.mark.parametrize("workers", [0, 2])
def test_row_groups_are_read_in_turn(
    top: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet.load(str(top), "train")
    views = make_views(source, augment="flip", size=72, seed=0)
    loader = Loader(
        views,
        source.labels,
        batch=4,
        seed=0,
        shuffle=True,
        shards=source.shards,
        shuffle_buffer=3,
        workers=workers,
    )
    monkeypatch.setattr(parquet, "_HELD", 0)  # one group is kept
    whole, rest = list(loader.epoch(1)), list(loader.epoch(1, start=1))
    for (one,), (other,) in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.images, other.images)
    order = torch.cat([batch.index for (batch,) in whole]).tolist()
    assert len(order) == len(set(order)) == 12


@pytest.mark.parametrize("fault", ["text", "no image"])
def test_files_that_cannot_be_read(top: Path, fault: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = top / "train-00001-of-00009.parquet"
    file.write_text("text")
    if fault == "no image":
        pq.write_table(pa.table({"caption": ["a"]}), file)
    with pytest.raises(DataError, match="train-00001"):
        parquet.load(str(top), "train")


def test_threads_that_meet_at_a_file_open_it_once(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copy would be freed, and its row groups be taken for those of another file."""
    import pyarrow.parquet as pq

    source, opened, real = parquet.load(str(top), "train"), list[str](), pq.ParquetFile
    parquet._HERE.files.clear()

    def open_slowly(place: str) -> pq.ParquetFile:
        opened.append(place)
        time.sleep(0.05)  # until all threads are here
        return real(place)

    monkeypatch.setattr(pq, "ParquetFile", open_slowly)
    with ThreadPool(8) as pool:
        images = pool.map(source.image, range(13), chunksize=1)
    assert [int(image.min()) // 4 for image in images] == list(range(13))
    assert len(opened) == len(set(opened)) == 3


def test_a_row_without_an_image_is_replaced(top: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = top / "train-00002-of-00009.parquet"
    pq.write_table(pa.table({"image": [None, b"text"], "label": [0, 1]}), file)
    file.rename(top / "train-00003-of-00009.parquet")
    parquet_files(top, {"train": 13})
    source = parquet.load(str(top), "train")
    assert torch.equal(source.image(13), source.image(0))
    assert torch.equal(source.image(14), source.image(1))
    assert "row 0 holds no image" in source.replaced()[0]


def test_without_pyarrow(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install 'datasets"):
        parquet.load(str(top), "train")
