"""Tables of very many images: no file is opened before training; faulty ones are replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from understudy.data import FileSource
from understudy.data.replaced import found_since
from understudy.data.sources import _many_files, _undecoded, csv
from understudy.errors import DataError

TABLES = {
    "one class": ("path,label,split\n", "images/{i}.png,{name},{split}\n"),
    "lists": ("path,label,split\n", "images/{i}.png,{name};all,{split}\n"),
    "columns": ("file_name,a,b,split\n", "{i}.png,{a},{b},{split}\n"),
}


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than four files are listed."""
    monkeypatch.setattr(_undecoded, "LISTED", 4)


@pytest.fixture(params=TABLES)
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Six images to train on, and two to test, in grey values 20 times their numbers."""
    header, row = TABLES[request.param]
    rows = []
    for i in range(8):
        name, split = "ab"[i % 2], "train" if i < 6 else "test"
        rows.append(row.format(i=i, name=name, split=split, a=1 - i % 2, b=i % 2))
        image = Image.new("RGB", (80 + i, 70), (20 * i,) * 3)
        (tmp_path / "images").mkdir(exist_ok=True)
        image.save(tmp_path / "images" / f"{i}.png")
    file = tmp_path / "table.csv"
    file.write_text(header + "".join(rows))
    return file


def greys(source: csv.Source) -> list[int]:
    return [int(source.image(i)[0, 0, 0]) // 20 for i in range(len(source))]


def test_no_file_is_opened_before_it_is_shown(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = csv.load(str(table), "test")
    assert isinstance(few, FileSource)
    monkeypatch.setattr(_undecoded, "LISTED", 9)
    decoded = csv.load(str(table), "train")
    monkeypatch.setattr(_undecoded, "LISTED", 4)
    opened = list[Path]()
    decode: Callable[[Path], torch.Tensor] = _many_files.decode
    monkeypatch.setattr(_many_files, "decode", lambda p: opened.append(p) or decode(p))
    listed = csv.load(str(table), "train")
    assert not opened
    assert not isinstance(listed, FileSource)
    assert torch.equal(listed.labels, decoded.labels)
    assert (listed.classes, listed.split_name) == (decoded.classes, decoded.split_name)
    assert list(listed.paths) == list(decoded.paths)
    assert greys(listed) == greys(decoded) == list(range(6))
    assert len(opened) == 6
    assert csv.load(str(table), "train").digest == listed.digest != decoded.digest


def test_a_table_is_listed_once(
    table: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    headers, read = list[Path](), _many_files.sides_of
    monkeypatch.setattr(_many_files, "sides_of", lambda p: headers.append(p) or read(p))
    opened = []
    for _ in range(2):
        csv.load(str(table), "train")
        opened.append(len(headers))
    assert opened == [6, 6]
    with caplog.at_level("INFO", "understudy"):
        Image.new("RGB", (90, 70)).save(table.parent / "images/0.png")
        csv.load(str(table), "train")
    assert "have changed since they were listed: 6 image files" in caplog.text


def test_the_next_of_its_class_stands_in_for_a_faulty_file(table: Path) -> None:
    (table.parent / "images/1.png").write_text("not an image")
    source = csv.load(str(table), "train")
    assert source.skipped == ()
    assert greys(source) == [0, 3, 2, 3, 4, 5]
    assert len(found_since(source)) == 1
    assert len(csv.load(str(table), "train").skipped) == 1
    stopped = csv.load(str(table), "train", unreadable="fail")
    with pytest.raises(DataError, match=r"1\.png"):
        greys(stopped)


def test_another_label_is_another_list(table: Path) -> None:
    before = csv.load(str(table), "train")
    text = table.read_text()
    table.write_text(text.replace("0.png,a", "0.png,b").replace("0.png,1,0", "0.png,0,1"))
    after = csv.load(str(table), "train")
    assert not torch.equal(before.labels, after.labels)
    assert before.images_digest == after.images_digest


def test_a_missing_file_is_named_at_the_start(table: Path) -> None:
    (table.parent / "images/1.png").unlink()
    with pytest.raises(DataError, match=r"line 3"):
        csv.load(str(table), "train")
