import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.processes import Fresh
from understudy.data import CLEAN, DecodedSource, FileSource, FileViews, Loader, Source
from understudy.data.decoded import _reduced
from understudy.data.sources import folder
from understudy.data.subset import Subset
from understudy.errors import DataError

Paint = Callable[..., Path]


@pytest.fixture
def live(tree: Path) -> FileSource:
    """Six images of three sizes, decoded whenever they are shown."""
    source = folder.load(str(tree), "train")
    assert isinstance(source, FileSource)
    return source


@pytest.fixture
def store(tree: Path) -> Path:
    return tree / "decoded"


def filled(source: Source, store: Path, **options: int) -> DecodedSource:
    kept = DecodedSource(source, store, **options)
    for i in range(len(source)):
        kept.image(i)
    return kept


def without_files(source: FileSource) -> FileSource:
    """The same listing, of files that can no longer be decoded."""
    digest = source.images_digest
    for path in source.paths:
        path.write_bytes(bytes(path.stat().st_size))
    assert source.images_digest == digest
    return source


def test_images_are_those_of_the_source_and_decoded_once(live: FileSource, store: Path) -> None:
    expected = [live.image(i) for i in range(len(live))]
    filled(live, store)
    again = DecodedSource(without_files(live), store)
    for i, image in enumerate(expected):
        assert torch.equal(again.image(i), image)
        assert torch.equal(again.crop(i, lambda h, w: (3, 5, h - 9, 7)), image[:, 3:-6, 5:12])
    assert again.sides().tolist() == [list(image.shape[1:]) for image in expected]


def test_everything_else_is_the_sources(live: FileSource, store: Path) -> None:
    kept = DecodedSource(live, store)
    assert kept.digest == live.digest
    assert (kept.classes, kept.skipped, kept.size) == (live.classes, live.skipped, live.size)
    assert torch.equal(kept.labels, live.labels)


def test_an_image_may_be_changed_by_who_got_it(live: FileSource, store: Path) -> None:
    kept = filled(live, store)
    before = kept.image(0).clone()
    kept.image(0).zero_()
    assert torch.equal(kept.image(0), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_changes_no_pixel(live: FileSource, store: Path, workers: int) -> None:
    def epochs(source: Source) -> list[torch.Tensor]:
        views = FileViews(source, augment="resized_crop", size=16, seed=0, jitter=0.4)
        one = Loader(views, source.labels, batch=3, seed=0, shuffle=True, workers=workers)
        return [micro.images for number in range(2) for step in one.epoch(number) for micro in step]

    expected = epochs(live)
    kept = DecodedSource(live, store)
    first = epochs(kept)  # the first epoch fills the store, the second reads it
    without_files(live)
    for shown in (first, epochs(kept), epochs(DecodedSource(live, store))):
        assert all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))


def test_a_copy_for_another_process_opens_the_folder_anew(live: FileSource, store: Path) -> None:
    kept = filled(live, store)
    sent = pickle.dumps(kept)
    assert len(sent) < 10_000
    assert torch.equal(pickle.loads(sent).image(4), kept.image(4))


def test_a_subset_shares_the_store(live: FileSource, store: Path) -> None:
    part = Subset(filled(live, store), torch.tensor([4, 1]), torch.tensor([1, 0]))
    assert torch.equal(part.image(0), live.image(4))
    assert torch.equal(part.crop(1, lambda h, w: (0, 0, 5, 6)), live.image(1)[:, :5, :6])
    assert part.sides().tolist() == [list(live.image(i).shape[1:]) for i in (4, 1)]


def test_reduced_images(live: FileSource, store: Path) -> None:
    kept = filled(live, store, side=35)
    assert [list(kept.image(i).shape[1:]) for i in range(3)] == [[35, 40], [35, 40], [35, 41]]
    reduced = Image.fromarray(live.image(0).permute(1, 2, 0).numpy()).resize((40, 35), 2)
    difference = kept.image(0).permute(1, 2, 0).int() - torch.from_numpy(np.array(reduced)).int()
    assert difference.abs().max() <= 1
    assert kept.digest != live.digest
    assert torch.equal(DecodedSource(live, store, side=35).image(2), kept.image(2))


def test_images_are_never_enlarged(live: FileSource, store: Path) -> None:
    assert torch.equal(filled(live, store, side=75).image(1), live.image(1))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
def test_the_shorter_side_decides(height: int, width: int, side: int) -> None:
    (found,) = _reduced(torch.tensor([[height, width]]), side).tolist()
    assert min(found) == min(side, height, width)
    assert abs(found[0] / height - found[1] / width) <= 0.5 / min(height, width) + 1e-9


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_are_kept_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.new("RGB", (90, 70), (1, 2, 3)).save(path, exif=exif)
    live = FileSource([path], torch.tensor([0]), ("a",), root=tmp_path)
    assert torch.equal(filled(live, tmp_path / "kept").image(0), live.image(0))
    assert live.sides().tolist() == [list(live.image(0).shape[1:])]


def test_a_killed_process_leaves_a_missing_image(live: FileSource, store: Path) -> None:
    kept = filled(live, store)
    expected = kept.image(1)
    with (store / "images.bin").open("r+b") as file:  # pixels are there, the checksum is not
        file.seek(kept._offsets[1])
        file.write(bytes(8))
    assert torch.equal(DecodedSource(live, store).image(1), expected)
    assert torch.equal(DecodedSource(without_files(live), store).image(1), expected)


@pytest.mark.parametrize("place", [0, 7, 8, 1000, -1])
def test_a_flipped_bit_is_noticed_and_mended(
    live: FileSource, store: Path, place: int, log: pytest.LogCaptureFixture
) -> None:
    kept = filled(live, store)
    start, end = kept._offsets[2:4]
    content = bytearray((store / "images.bin").read_bytes())
    right = bytes(content)
    content[start + place if place >= 0 else end - 1] ^= 4
    (store / "images.bin").write_bytes(content)
    assert torch.equal(DecodedSource(live, store).image(2), live.image(2))
    assert "image 2 is not what was stored; it is decoded again" in log.text
    assert (store / "images.bin").read_bytes() == right
    (store / "images.bin").write_bytes(content)
    damaged = DecodedSource(without_files(live), store)
    damaged.image(1)
    with pytest.raises(
        DataError, match=r"the checksum of image 2 does not match\): delete .*decoded"
    ):
        damaged.crop(2, lambda height, width: (0, 0, 1, 1))


FULL = """
import sys
from pathlib import Path
import torch
from understudy.data.decoded import DecodedSource
from understudy.data.source import MemorySource
from understudy.errors import DataError
disk = Path(sys.argv[1])
pixels = torch.arange(3 * 100 * 30 * 30).reshape(100, 3, 30, 30).to(torch.uint8)
source = DecodedSource(MemorySource(pixels, torch.zeros(100), ("a",)), disk / "decoded")
try:
    (disk / "ballast").write_bytes(bytes(10**6))
except OSError:
    pass
try:
    for i in range(100):
        source.image(i)
except DataError as error:
    print(error)
"""


def test_a_full_disk_in_memory_ends_in_a_sentence(small_disk: Path) -> None:
    assert (
        "No space left on device); those already stored" in Fresh("-c", FULL, small_disk).finish()
    )


@pytest.mark.parametrize("name", ["manifest.json", "sides.npy", "images.bin"])
def test_a_truncated_file_is_named(live: FileSource, store: Path, name: str) -> None:
    filled(live, store)
    path = store / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        DecodedSource(live, store)


def test_a_changed_folder_is_refused(live: FileSource, store: Path, tree: Path) -> None:
    filled(live, store)
    (tree / "train/cat/0.png").unlink()
    with pytest.raises(DataError, match="its number of images is 6, and that of this run is 5"):
        DecodedSource(folder.load(str(tree), "train"), store)
    shutil.copy(tree / "train/dog/1.png", tree / "train/cat/0.png")
    with pytest.raises(DataError, match="its digest of the images is"):
        DecodedSource(folder.load(str(tree), "train"), store)


def test_another_side_is_refused(live: FileSource, store: Path) -> None:
    filled(live, store)
    with pytest.raises(DataError, match=r"data\.decoded_side is None, and that of this run is 35"):
        DecodedSource(live, store, side=35)


def test_an_image_of_another_size_is_refused(live: FileSource, store: Path, paint: Paint) -> None:
    kept = DecodedSource(live, store)
    paint("train/cat/0.png", size=(90, 90))
    with pytest.raises(DataError, match="Image 0 has 90 × 90 pixels, but had 70 × 80"):
        kept.image(0)


def test_too_little_room_is_said_before_anything_is_written(
    live: FileSource, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        DataError, match=r"need 102,[0-9]{3} bytes, but .* has 1,000 free: set data\."
    ):
        DecodedSource(live, store)
    assert not [path for path in store.parent.iterdir() if "decoded" in path.name]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_loses_nothing(
    live: FileSource, store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    kept = DecodedSource(live, store)
    expected = kept.image(0)

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        assert torch.equal(kept.image(0), expected)
        with pytest.raises(
            DataError, match=r"cannot be stored in .*; those already stored are intact"
        ):
            kept.image(1)
    assert torch.equal(DecodedSource(live, store).image(0), expected)
    assert torch.equal(kept.image(1), live.image(1))


def test_a_short_write_is_a_full_disk(
    live: FileSource, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DecodedSource(live, store)
    monkeypatch.setattr(os, "pwrite", lambda handle, content, offset: len(content) - 1)
    with pytest.raises(DataError, match="No space left on device"):
        kept.image(0)


def test_a_store_made_meanwhile_by_another_process_is_used(
    live: FileSource, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        filled(live, target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    kept = DecodedSource(live, store)
    assert kept._bytes[kept._offsets[3]] or kept._bytes[kept._offsets[3] + 1]
    assert not list(store.parent.glob(".decoded*"))


def test_clean_views_are_equal_too(live: FileSource, store: Path) -> None:
    index = torch.arange(6)
    shown = [
        FileViews(source, augment="resized_crop", size=24, seed=0)(
            index, torch.full_like(index, CLEAN)
        )
        for source in (live, DecodedSource(live, store))
    ]
    assert torch.equal(*shown)
