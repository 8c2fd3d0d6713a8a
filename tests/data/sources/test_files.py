"""The cache of pixels and the record of checks follow every file's place and content."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from understudy.data import MemorySource
from understudy.data.source import Source
from understudy.data.sources import csv, folder

GREY = {f"{i}.png": i * 20 for i in range(12)}


@pytest.fixture(params=[32, 80], ids=["in memory", "in files"])
def top(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Twelve grey images, as small or as large ones; image i is of class i % 3."""
    for i, (name, grey) in enumerate(GREY.items()):
        file = tmp_path / f"train/class{i % 3}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (request.param, request.param), (grey,) * 3).save(file)
    return tmp_path


def table(top: Path, names: list[str]) -> Source:
    """The source of a CSV file that lists some images."""
    rows = [f"train/class{GREY[n] // 20 % 3}/{n},class{GREY[n] // 20 % 3}" for n in names]
    (top / "all.csv").write_text("\n".join(["path,label", *rows]))
    return csv.load(str(top / "all.csv"), "train")


def greys(source: Source) -> list[int]:
    return [int(source.image(i)[0, 0, 0]) for i in range(len(source))]


def right(source: Source) -> bool:
    labels = [source.classes[label] for label in source.labels.tolist()]
    return labels == [f"class{grey // 20 % 3}" for grey in greys(source)]


def test_every_order_of_rows_has_its_own_pixels(top: Path) -> None:
    names = list(GREY)
    for seed in range(3):
        assert greys(table(top, names)) == [GREY[name] for name in names]
        random.Random(seed).shuffle(names)


def test_rows_may_be_repeated_or_left_out(top: Path) -> None:
    for names in (["3.png"] * 3 + list(GREY), ["5.png", "4.png"], ["4.png", "4.png"]):
        source = table(top, names)
        assert greys(source) == [GREY[name] for name in names]
        assert right(source)


def test_a_folder_after_a_table_of_the_same_files(top: Path) -> None:
    assert right(table(top, sorted(GREY, reverse=True)))
    assert right(folder.load(str(top), "train"))
    assert right(folder.load(str(top / "train"), "train"))


def test_a_damaged_cache_is_made_anew(top: Path) -> None:
    source = folder.load(str(top), "train")
    for cache in top.glob(".understudy-pixels-*.npy"):
        np.save(cache, np.zeros((3, 3), np.uint8))
    assert right(folder.load(str(top), "train"))
    for cache in top.glob(".understudy-pixels-*.npy"):
        cache.write_bytes(b"")
    assert right(folder.load(str(top), "train"))
    assert isinstance(source, MemorySource) == any(top.glob(".understudy-pixels-*"))


@pytest.mark.parametrize("times", ["new", "kept"])
def test_content_changed_in_place_is_another_digest(top: Path, times: str) -> None:
    """Of equal size in bytes, and even of equal time of change."""
    file = top / "train/class1/1.bmp"
    Image.new("RGB", Image.open(top / "train/class1/1.png").size, (9, 9, 9)).save(file)
    before, first = file.stat(), folder.load(str(top), "train")
    Image.new("RGB", Image.open(file).size, (200, 9, 9)).save(file)
    if times == "kept":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    changed = folder.load(str(top), "train")
    assert changed.images_digest != first.images_digest
    position = sorted(p.name for p in (top / "train/class1").iterdir()).index("1.bmp") + 4
    assert changed.image(position)[0, 0, 0] == 200


def test_contents_are_read_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder.load(str(top), "train").digest
    assert len(json.loads((top / ".understudy-check.json").read_text())) == len(GREY)

    def refuse(path: Path) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert folder.load(str(top), "train").digest == first
    monkeypatch.undo()
    (top / "train/class0/0.png").touch()
    assert folder.load(str(top), "train").digest == first


def test_a_record_of_another_version_is_checked_anew(top: Path) -> None:
    first, record = folder.load(str(top), "train").digest, top / ".understudy-check.json"
    old = {
        name: [entry[1], entry[2], [1, 1]] for name, entry in json.loads(record.read_text()).items()
    }
    record.write_text(json.dumps(old))
    source = folder.load(str(top), "train")
    assert (source.digest, right(source)) == (first, True)


def test_partial_files_of_killed_processes_are_removed(top: Path) -> None:
    old = [".understudy-pixels-0123456789abcdef-99.npy", ".understudy-check.json.99"]
    kept = [".understudy-pixels-0123456789abcdef.npy", ".understudy-pixels-mine.npy", "99.npy"]
    new = ".understudy-pixels-0123456789abcdef-98.npy"
    for name in (*old, *kept, new):
        (top / name).write_bytes(b"part")
        if name != new:
            os.utime(top / name, (1, 1))
    source = folder.load(str(top), "train")
    names = {path.name for path in top.iterdir()}
    # Larger images have no file of pixels that could have been left in part.
    assert names.isdisjoint(old if isinstance(source, MemorySource) else old[1:])
    assert names.issuperset((*kept, new))
