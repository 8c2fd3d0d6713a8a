"""Kinds of files that are no readable picture: each is left out, counted, and its cause said."""

import os
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
