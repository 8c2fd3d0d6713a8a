"""A folder of many files is listed once and not decoded; faulty files are replaced when met."""

import json
import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from understudy.data import FileSource, Loader, Source
from understudy.data.decoded import DecodedSource
from understudy.data.joined import join
from understudy.data.replaced import ReplacedSource, found_since
from understudy.data.sources import _many_files, _undecoded, folder
from understudy.data.sources._cache import cache_folder
from understudy.data.subset import Subset, split
from understudy.data.views import make_views
from understudy.errors import DataError
from understudy.experiment.shared_images import shared_images

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than four files are listed, as are folders that were changed just now."""
    monkeypatch.setattr(_undecoded, "LISTED", 4)
    monkeypatch.setattr(_many_files, "_FINE", 0)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Six grey photographs in two classes, of which one has a folder more, and two to test."""
    for i, name in enumerate(["b/0", "b/1", "b/2", "a/x-1/3", "a/x/4", "a/z"]):
        paint(tmp_path / f"train/{name}.png", i)
    paint(tmp_path / "test/a/0.png", 9)
    paint(tmp_path / "test/b/0.png", 8)
    return tmp_path


def paint(file: Path, i: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80 + i, 70), (20 * i,) * 3).save(file)


def greys(source: Source) -> list[int]:
    return [int(source.image(i)[0, 0, 0]) // 20 for i in range(len(source))]


def load(top: Path, **options: str) -> Source:
    return folder.load(str(top), "train", **options)  # type: ignore[arg-type]


def test_it_holds_what_a_decoded_one_does(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = load(top)
    monkeypatch.setattr(_undecoded, "LISTED", 100)
    decoded = load(top)
    assert isinstance(decoded, FileSource)
    assert not isinstance(listed, FileSource)
    assert list(listed.paths) == list(decoded.paths)
    assert listed.labels.tolist() == decoded.labels.tolist()
    assert (listed.classes, listed.size, listed.skipped) == (decoded.classes, None, ())
    assert listed.sides().tolist() == decoded.sides().tolist()
    assert greys(listed) == greys(decoded) == [4, 3, 5, 0, 1, 2]


def test_no_image_is_decoded_before_it_is_shown(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = list[Path]()
    real = _many_files.decode
    monkeypatch.setattr(_many_files, "decode", lambda p: decoded.append(p) or real(p))
    source = load(top)
    assert len(source.digest) == 16
    loader = Loader(
        make_views(source, augment="resized_crop", size=8, seed=0),
        source.labels,
        batch=2,
        seed=0,
        shuffle=True,
    )
    assert decoded == []
    next(loader.epoch(0))
    assert len(decoded) == 2


def test_it_is_listed_once(
    top: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "understudy")
    first = load(top)
    assert "6 image files are listed in" in caplog.text
    caplog.clear()
    monkeypatch.setattr(folder, "list_images", None)
    second = load(top)
    assert caplog.text == ""
    assert second.digest == first.digest
    assert not list(top.rglob(".understudy*"))


def _remove_a_folder(top: Path) -> None:
    (top / "train/a/x/4.png").unlink()
    (top / "train/a/x").rmdir()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda top: paint(top / "train/a/x/5.png", 7), id="a new file"),
        pytest.param(lambda top: (top / "train/b/1.png").unlink(), id="a file less"),
        pytest.param(lambda top: paint(top / "train/b/1.png", 700), id="another content"),
        pytest.param(_remove_a_folder, id="a folder less"),
    ],
)
def test_a_change_is_noticed(top: Path, change: Change, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "understudy")
    before = load(top)
    change(top)
    caplog.clear()
    after = load(top)
    assert "have changed since they were listed" in caplog.text
    assert after.digest != before.digest
    greys(after)


def test_folders_that_were_changed_just_now_are_listed_again(
    top: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "understudy")
    monkeypatch.setattr(_many_files, "_FINE", 10**12)
    for _ in range(2):
        caplog.clear()
        assert len(load(top)) == 6
        assert "6 image files are listed in" in caplog.text


@pytest.fixture
def damaged(top: Path) -> Path:
    """Image 0 is no picture, and 3 ends early; the images behind them are of the same class."""
    (top / "train/a/x/4.png").write_text("not an image")
    whole = top / "train/b/0.png"
    whole.write_bytes(whole.read_bytes()[:-40])
    return top


def test_the_next_of_its_class_stands_in_for_a_faulty_file(damaged: Path) -> None:
    source = load(damaged)
    assert source.skipped == source.replaced() == ()
    assert greys(source) == greys(source) == [3, 3, 5, 1, 1, 2]
    assert source.sides().tolist() == [list(source.image(i).shape[1:]) for i in range(6)]
    lines = found_since(source)
    assert ["4.png" in lines[0], "0.png" in lines[1], len(lines)] == [True, True, 2]
    assert "stands in for it" in lines[0]
    again = load(damaged)
    assert (again.skipped, found_since(again)) == (lines, ())
    assert again.digest == source.digest
    paint(damaged / "train/b/0.png", 1000)  # repaired
    assert again.replaced() == lines[:1]


def test_no_image_that_is_held_out_stands_in_for_another(damaged: Path) -> None:
    whole = load(damaged)
    index = torch.tensor([0, 2, 3, 5])  # of 1 and 4, which come first for the whole
    part = Subset(whole, index, whole.labels[index])
    assert greys(part) == [5, 5, 2, 2]
    assert (greys(whole)[0], greys(whole)[3]) == (3, 1)


def test_no_image_that_is_held_out_stands_in_for_another_of_a_decoded_folder(
    damaged: Path, tmp_path: Path
) -> None:
    index = torch.tensor([0, 2, 3, 5])
    for held_out in (True, False, True):  # the folder is filled by one run, and read by others
        whole = DecodedSource(load(damaged), tmp_path / "decoded")
        part = Subset(whole, index, whole.labels[index])
        assert greys(part if held_out else whole) == (
            [5, 5, 2, 2] if held_out else [3, 3, 5, 1, 1, 2]
        )
        assert part.sides().tolist() == [list(part.image(i).shape[1:]) for i in range(4)]
        assert [part.is_replaced(i) for i in range(4)] == [True, False, True, False]


def test_images_that_are_joined_are_replaced_as_alone(damaged: Path) -> None:
    labelled = load(damaged)
    joined = join(labelled, folder.load_unlabelled(damaged / "train"))
    index = torch.tensor([0, 2, 3, 5])  # of 1 and 4, which stand in for 0 and 3, none is left
    part = Subset(joined, index, joined.labels[index])
    assert greys(part) == greys(Subset(labelled, index, labelled.labels[index])) == [5, 5, 2, 2]
    assert [part.is_replaced(i) for i in range(4)] == [True, False, True, False]
    assert not joined.is_replaced(1)


def test_a_worker_process_notes_faulty_files_too(damaged: Path) -> None:
    source = load(damaged)
    views = make_views(source, augment="none", size=8, seed=0)
    loader = Loader(views, source.labels, batch=6, seed=0, shuffle=True, workers=1)
    (batch,) = next(loader.epoch(0))
    alone = Loader(views, source.labels, batch=6, seed=0, shuffle=True)
    assert torch.equal(batch.images, next(alone.epoch(0))[0].images)
    assert len(source.replaced()) == 2


def test_a_faulty_file_is_noted_once_whichever_process_meets_it(damaged: Path) -> None:
    source = load(damaged)
    views = make_views(source, augment="none", size=8, seed=0)
    loader = Loader(views, source.labels, batch=6, seed=0, shuffle=True, workers=1)
    for epoch in range(2):
        list(loader.epoch(epoch))
    greys(source)
    greys(load(damaged))
    (notes,) = cache_folder().rglob("faulty.jsonl")
    assert len(notes.read_text().splitlines()) == 2
    again = load(damaged)
    (damaged / "train/b/0.png").write_text("another fault")
    greys(again)
    assert len(notes.read_text().splitlines()) == 3


def test_images_that_stand_in_come_in_the_order_of_the_source(top: Path) -> None:
    source = load(top)
    assert isinstance(source, ReplacedSource)
    assert [source._next(i) for i in range(6)] == [[1, 2], [2, 0], [0, 1], [4, 5], [5, 3], [3, 4]]
    part = source.within(torch.tensor([0, 2, 5]))
    assert isinstance(part, ReplacedSource)
    assert [part._next(i) for i in (1, 2, 5)] == [[2, 0], [0], []]


def test_faulty_files_stop_on_request(damaged: Path) -> None:
    source = load(damaged, unreadable="fail")
    with pytest.raises(DataError, match=r"4\.png cannot be read as an image"):
        source.image(0)


@pytest.mark.parametrize("fault", [TimeoutError(), ConnectionResetError("reset by peer")])
def test_a_fault_of_the_network_replaces_no_image(
    top: Path, fault: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = load(top), _many_files.decode

    def decode_by_network(path: Path) -> torch.Tensor:
        if path.name == "4.png":
            raise DataError("4.png cannot be read") from fault
        return real(path)

    monkeypatch.setattr(_many_files, "decode", decode_by_network)
    with pytest.raises(DataError, match=r"4\.png cannot be read$"):
        source.image(0)
    assert source.replaced() == ()


def test_links_that_lead_nowhere_stop_on_request_as_in_small_folders(top: Path) -> None:
    (top / "train/a/x/5.png").symlink_to("nowhere")
    for source in (load(top), load(top)):  # listed, and read from the list
        assert "is a link to itself or to nothing" in source.skipped[0]
    with pytest.raises(DataError, match=r"1 files cannot be read, first: .*5\.png"):
        load(top, unreadable="fail")


def test_a_file_that_is_gone_stops(top: Path) -> None:
    source = load(top)
    (top / "train/a/z.png").unlink()
    with pytest.raises(DataError, match=r"z\.png cannot be read"):
        source.image(2)


def test_a_class_without_a_whole_image_stops(top: Path) -> None:
    source = load(top)
    for file in (top / "train/b").iterdir():
        file.write_text("text")
    with pytest.raises(DataError, match="neither can the images of its class"):
        source.image(3)


def test_nothing_readable_is_an_error(top: Path) -> None:
    for file in top.rglob("train/**/*.png"):
        file.write_text("text")
    with pytest.raises(DataError, match="None of 6 sampled files can be read"):
        load(top)


def test_a_folder_that_cannot_be_read_is_not_taken_for_one_of_the_cache(
    top: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.scandir

    def scandir(place: str | Path) -> object:
        if Path(place).name == "x":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"The folder .*x cannot be read \(Permission denied\)"):
        load(top)
    assert "cannot be written" not in caplog.text


def test_small_images_are_kept_in_memory_as_before(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGB", (8, 8), (i,) * 3).save(tmp_path / f"{i}.png")
    assert load(tmp_path).pixels is not None
    assert not list(cache_folder().rglob("*.columns"))


def test_a_cache_that_cannot_be_written_is_done_without(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert greys(load(top)) == [4, 3, 5, 0, 1, 2]
    assert "cannot be written" in caplog.text


def test_without_a_cache_each_split_notes_its_own_faulty_images(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("test/b/1.png", "test/b/2.png", "test/b/3.png"):
        paint(damaged / name, 7)
    (damaged / "test/b/2.png").write_text("not an image")
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "file"))
    train, test = load(damaged), folder.load(str(damaged), "test")
    for source in (train, test):
        greys(source)
    assert (len(train.replaced()), len(test.replaced())) == (2, 1)


def test_the_variable_of_the_cache_goes_before_those_of_the_system(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    load(top)
    assert list((tmp_path / "own" / "folders").glob("*/files.columns"))
    monkeypatch.delenv("UNDERSTUDY_CACHE")
    assert cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "understudy"


def test_unlabelled_images_below_a_folder(top: Path) -> None:
    source = folder.load_unlabelled(top / "train")
    assert greys(source) == [4, 3, 5, 0, 1, 2]
    assert set(source.labels.tolist()) == {-1}


def _digest(top: Path) -> str:
    return load(top).digest


def test_one_process_lists_for_all(top: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        digests = set(pool.map(_digest, [top] * 3))
    assert digests == {load(top).digest}


def test_a_worker_maps_the_list_anew(top: Path) -> None:
    source = load(top)
    sent = pickle.dumps(source.paths)
    assert b"z.png" not in sent
    assert list(pickle.loads(sent)) == list(source.paths)


def test_images_of_two_splits_are_compared_by_their_files(top: Path) -> None:
    train, test = load(top), folder.load(str(top), "test")
    assert shared_images(train, test) == []
    (top / "test/b/copy.png").symlink_to(top / "train/b/1.png")
    assert shared_images(train, folder.load(str(top), "test")) == [2]
    assert shared_images(*split(train, 0.5, seed=0)) == []


def test_images_of_a_folder_within_that_of_the_other_split_are_compared(top: Path) -> None:
    whole, part = folder.load_unlabelled(top), load(top)
    assert {whole.paths[i] for i in shared_images(part, whole)} == set(part.paths)
    assert shared_images(whole, part) == list(range(6))


def test_an_image_takes_few_bytes(tmp_path: Path) -> None:
    """What a process holds and maps of the list, without decoding: the names, and 32 bytes."""
    Image.new("RGB", (90, 80)).save(tmp_path / "0.png")
    for i in range(1, 500):
        (tmp_path / f"{i}.png").hardlink_to(tmp_path / "0.png")
    load(tmp_path)
    (stored,) = (cache_folder() / "folders").glob("*/files.columns")
    assert stored.stat().st_size < 500 * 48
    header = json.loads(stored.read_bytes().splitlines()[1])
    assert set(header["columns"]) >= {"name", "name.ends", "label", "bytes", "time"}
