"""Kinds of files that are no readable picture: each is left out, counted, and its cause said."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from understudy.data.sources import csv, folder
from understudy.errors import DataError


def noise() -> Image.Image:
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (48, 48, 3), dtype=np.uint8))


def cut(file: Path) -> None:
    noise().save(file)
    file.write_bytes(file.read_bytes()[:-1500])


def saved_as(form: str) -> Callable[[Path], None]:
    return lambda file: noise().save(file, form)


def filled(value: float) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(np.full((6, 6), value, "float32")).save(file)


def enormous(file: Path) -> None:
    """A PNG that says it has 100,000 × 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"black")), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


CUT = "truncated|Truncated|corrupt|failed to decode|cannot|incomplete|not enough"
NO_IMAGE = "its content is none of JPEG"
KINDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("x.png", lambda file: file.write_bytes(b""), NO_IMAGE),
    "text": ("x.jpg", lambda file: file.write_text("no picture"), NO_IMAGE),
    "web page": ("x.jpg", lambda file: file.write_text("<html>404</html>"), NO_IMAGE),
    "header alone": ("x.png", lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n"), NO_IMAGE),
    "cut JPEG": ("x.jpg", cut, CUT),
    "cut PNG": ("x.png", cut, CUT),
    "cut WebP": ("x.webp", cut, CUT),
    "cut BMP": ("x.bmp", cut, CUT),
    "PostScript": ("x.jpg", saved_as("EPS"), NO_IMAGE),
    "PDF": ("x.jpg", saved_as("PDF"), NO_IMAGE),
    "other format": ("x.png", saved_as("TGA"), NO_IMAGE),
    "negative": ("x.tif", filled(-1.0), "white is not known"),
    "not finite": ("x.tif", filled(np.nan), "white is not known"),
    "enormous": ("x.png", enormous, "decompression bomb"),
    "link to itself": ("x.png", lambda file: file.symlink_to(file.name), "link to itself"),
    "link to nothing": ("x.png", lambda file: file.symlink_to("gone.png"), "or to nothing"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_left_out_counted_and_named(tree: Path, kind: str) -> None:
    name, write, cause = KINDS[kind]
    file = tree / "train/cat" / name
    write(file)
    whole = folder.load(str(tree), "train")
    assert len(whole) == 6
    assert len(whole.skipped) == 1
    assert str(file) in whole.skipped[0]
    assert any(words in whole.skipped[0] for words in cause.split("|"))
    with pytest.raises(DataError, match=r"cannot be read, first: .*data\.unreadable=skip"):
        folder.load(str(tree), "train", unreadable="fail")


@pytest.mark.parametrize("kind", [name for name in KINDS if not name.startswith("link")])
def test_a_table_leaves_it_out_as_well(tree: Path, kind: str) -> None:
    name, write, _ = KINDS[kind]
    write(tree / name)
    rows = [f"{name},cat", "train/cat/0.png,cat", "train/dog/0.png,dog"]
    (tree / "labels.csv").write_text("\n".join(["path,label", *rows]))
    source = csv.load(str(tree / "labels.csv"), "train")
    assert (len(source), len(source.skipped)) == (2, 1)
    assert name in source.skipped[0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_left_out(tree: Path) -> None:
    (tree / "train/cat/0.png").chmod(0)
    (line,) = folder.load(str(tree), "train").skipped
    assert "Permission denied" in line


def deep(file: Path, *largest: int, colours: bool = False) -> None:
    """Pictures of 16 bits a number, each with its largest."""
    for number, value in enumerate(largest):
        path = file / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((40, 44), value, "uint16")
        if not colours:
            Image.fromarray(grey).save(path)
            continue
        rows = b"".join(b"\0" + row.tobytes() for row in np.stack([grey] * 3, 2).astype(">u2"))
        header = struct.pack(">IIBBBBB", 44, 40, 16, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks)))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("largest", "colours", "words"),
    [
        ((1023, 700), False, "none holds a number above 1023: they are read as 12 bits, in which"),
        ((16383, 9000), False, r"read as 16 bits, in which this is 25% of white. If 16383 is wh"),
        ((1000, 900), False, r"above 1000: .* 24% of white. If 1023 is white, save them with 8"),
        ((4095, 65535), False, "by the largest number of each, 1 as 12 bits, 1 as 16 bits, so"),
        ((200, 4095), False, "1 as 8 bits, 1 as 12 bits"),
        (
            (1023, 900),
            True,
            r"^2 of the pictures in .* above 1023: they are read as 16 bits.* 2% of white",
        ),
        ((4095, 3000), False, ""),
        ((65535, 40000), False, ""),
        ((65535, 65000), True, ""),
    ],
)
def test_pictures_of_many_bits_that_come_out_dark_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    largest: tuple[int, ...],
    colours: bool,
    words: str,
) -> None:
    deep(tmp_path, *largest, colours=colours)
    for _ in range(2):  # the second time by the stored record
        folder.load(str(tmp_path), "train")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(words)
    assert not words or re.search(words, lines[0])
