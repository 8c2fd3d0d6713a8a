"""Images in tar files: found by an index, shown in an order that keeps to few shards at a time."""

import logging
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from tests.support.small_shards import PER_SHARD, add, picture, shards
from understudy.data import Loader, Source
from understudy.data._image import decode
from understudy.data.sources import webdataset
from understudy.data.sources._splits import NoSplit
from understudy.data.subset import split
from understudy.data.views import make_views
from understudy.errors import DataError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return shards(tmp_path / "shards", {"train": 23, "val": 4})


def greys(source: Source) -> list[int]:
    return [int(source.image(i).min()) // 4 for i in range(len(source))]


def test_images_and_labels_in_the_order_of_the_shards(top: Path) -> None:
    train, test = webdataset.load(str(top), "train"), webdataset.load(str(top), "test")
    assert (greys(train), greys(test)) == (list(range(23)), list(range(4)))
    assert train.labels.tolist() == [i % 2 for i in range(23)]
    assert train.classes == test.classes == ("0", "1")
    assert (train.size, train.pixels, train.skipped) == (72, None, ())
    assert train.sides().tolist() == [[72, 72]] * 23
    assert train.shards is not None
    assert train.shards.tolist() == [0, 5, 10, 15, 20, 23]
    with pytest.raises(NoSplit):
        webdataset.load(str(top), "validation")


@pytest.mark.parametrize(
    "pattern",
    [
        "{}/train-*.tar",
        "{}/train-{{000..004}}.tar",
        "{0}/train-{{000,001}}.tar, {0}/train-00[2-4].tar",
        "{}/list.txt",
    ],
)
def test_ways_to_name_shards(top: Path, pattern: str) -> None:
    (top / "list.txt").write_text("# training\n" + "\n".join(f"train-00{i}.tar" for i in range(5)))
    assert len(webdataset.load(pattern.format(top), "train")) == 23


def test_labels_by_name_in_json_and_no_labels(tmp_path: Path) -> None:
    named = shards(tmp_path / "named", {"train": 3}, labels="json")
    source = webdataset.load(str(named), "train")
    assert (source.classes, source.labels.tolist()) == (("class0", "class1"), [0, 1, 0])
    bare = webdataset.load(str(shards(tmp_path / "bare", {"a": 3}, labels="")), "train")
    assert (bare.classes, bare.labels.tolist()) == ((), [-1, -1, -1])


def test_the_index_is_made_once_and_follows_the_shards(
    top: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "understudy")
    first = webdataset.load(str(top), "train")
    assert "23 images in 5 shards are indexed" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patched:
        patched.setattr(webdataset, "_index", None)
        assert webdataset.load(str(top), "train").digest == first.digest
    assert caplog.text == ""
    with tarfile.open(top / "train-004.tar", "a") as tar:
        add(tar, "0023.png", picture(23, 72))
    changed = webdataset.load(str(top), "train")
    assert "(1 of the shards were read)" in caplog.text
    assert greys(changed) == list(range(24))
    assert changed.labels.tolist() == [*(i % 2 for i in range(23)), -1]
    assert changed.digest != first.digest
    moved = top.rename(top.with_name("moved"))
    assert webdataset.load(str(moved), "train").digest == changed.digest


def test_a_faulty_image_is_replaced_by_the_next_of_its_class(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards", {"train": 6})
    with tarfile.open(folder / "train-002.tar", "w") as tar:
        add(tar, "a.jpg", b"no image")
        add(tar, "a.cls", b"1")
    source = webdataset.load(str(folder), "train")
    assert torch.equal(source.image(6), source.image(1))
    assert "train-002.tar: a.jpg cannot be read" in source.replaced()[0]
    strict = webdataset.load(str(folder), "train", unreadable="fail")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        strict.image(6)


@pytest.mark.parametrize("fault", ["short", "compressed", "not json", "no label"])
def test_a_damaged_shard_is_refused(top: Path, fault: str) -> None:
    file = top / "train-001.tar"
    if fault == "short":
        file.write_bytes(file.read_bytes()[:5000])
    with tarfile.open(file, "w:gz" if fault == "compressed" else "w") as tar:
        add(tar, "a.jpg", picture(0, 72))
        if fault == "not json":
            add(tar, "a.json", b"{")
        if fault == "no label":
            add(tar, "a.json", b'{"label": [1]}')
    if fault == "short":
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="train-001"):
        webdataset.load(str(top), "train")


@pytest.mark.parametrize(
    ("root", "sentence"),
    [
        ("", r"set data\.root"),
        ("nowhere/a.tar", "There is no shard"),
        ("nowhere/*.tar", r"There is no \.tar file"),
        ("nowhere.txt", "There is no file"),
        ("memory://nowhere/*.tar", r"There is no \.tar file"),
        ("nowhere/{0..1000000}.tar", "more shards than the 1,000,000"),
        ("magic://nowhere/a.tar", "cannot be reached"),
    ],
)
def test_shards_that_are_not_there(root: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        webdataset.load(root, "train")


def test_an_address_is_read_through_fsspec(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for file in top.iterdir():
        system.pipe(f"/bucket/{file.name}", file.read_bytes())
    local = webdataset.load(str(top), "train")
    for root in ("memory://bucket", "memory://bucket/train-{000..004}.tar"):
        remote = webdataset.load(root, "train")
        assert remote.digest == local.digest
        assert torch.equal(remote.image(7), local.image(7))
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(DataError, match="pip install 'fsspec"):
        webdataset.load("s3://bucket/a.tar", "train")


def test_a_name_that_is_almost_a_number_is_a_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        for i, label in enumerate(["--5", "-x"]):
            add(tar, f"{i}.png", picture(i, 72))
            add(tar, f"{i}.cls", label.encode())
    assert webdataset.load(str(tmp_path), "train").classes == ("--5", "-x")


def loader(source: Source, **options: int) -> Loader:
    return Loader(
        make_views(source, augment="flip", size=72, seed=0),
        source.labels,
        shards=source.shards,
        **{"batch": 4, "seed": 0, "shuffle": True, "shuffle_buffer": 3, **options},  # type: ignore[arg-type]
    )


def test_the_order_is_a_function_of_seed_and_epoch_that_keeps_to_few_shards(top: Path) -> None:
    source = webdataset.load(str(top), "train")
    orders = [loader(source).epoch_order(epoch)[0].tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [list(range(23))] * 2
    assert orders[0] != orders[1]
    assert loader(source).epoch_order(1)[0].tolist() == orders[1]
    assert loader(source, seed=1).epoch_order(0)[0].tolist() != orders[0]
    seen = [i // PER_SHARD for i in orders[0]]
    # An image of the buffer stays there for as long as it is not drawn: most leave soon.
    distance = sum(len(set(seen[k : k + 5])) for k in range(18)) / 18
    assert distance < 3.2
    assert sum(len({i // 5 for i in torch.randperm(23)[:5].tolist()}) for _ in range(9)) / 9 > 3.2


def test_an_epoch_goes_on_in_the_middle_of_a_shard(top: Path) -> None:
    source = webdataset.load(str(top), "train")
    whole = list(loader(source).epoch(2))
    rest = list(loader(source, workers=2).epoch(2, start=3))
    assert len(rest) == len(whole) - 3
    for (one,), (other,) in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)


def test_part_of_the_images_keeps_to_their_shards(top: Path) -> None:
    train, _ = split(webdataset.load(str(top), "train"), 0.3, seed=0)
    assert train.shards is not None
    assert train.shards[-1] == len(train)
    order = loader(train).epoch_order(0)[0]
    assert sorted(order.tolist()) == list(range(len(train)))


def test_small_images_are_kept_in_memory(tmp_path: Path) -> None:
    folder = shards(tmp_path / "small", {"train": 6}, side=8)
    source = webdataset.load(str(folder), "train")
    assert source.pixels is not None
    assert source.shards is not None
    assert torch.equal(source.pixels[3], decode(BytesIO(picture(3, 8))))
