"""Pictures in every form are read alike, and forms that could mean two things are refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from understudy.data._image import decode
from understudy.deployment.prediction.pictures import listed
from understudy.errors import DataError

ARRAY = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(ARRAY).permute(2, 0, 1)


def read(picture: Any) -> Tensor:
    """The pixels of a single picture."""
    (item,) = listed(picture)
    return item.read()[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(ARRAY).save(path)
    return path


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(ARRAY),
        ARRAY,
        ARRAY.astype(np.float32) / 255,
        ARRAY.astype(np.float64) / 255,
        TENSOR,
        TENSOR / 255,
        (TENSOR / 255).requires_grad_(),
        ARRAY[None],
        TENSOR[None],
        [TENSOR],
    ],
)
def test_every_form_of_a_picture_is_the_same(picture: Any) -> None:
    assert torch.equal(read(picture), TENSOR)


def test_files_are_read_as_by_a_data_source(file: Path) -> None:
    for named in (file, str(file)):
        assert torch.equal(read(named), decode(file))


@pytest.mark.parametrize("grey", [ARRAY[:, :, 0], ARRAY[:, :, :1], TENSOR[0], TENSOR[:1]])
def test_grey_is_spread_over_three_channels(grey: Any) -> None:
    assert torch.equal(read(grey), TENSOR[:1].expand(3, -1, -1))


def test_transparent_pixels_are_white() -> None:
    alpha = np.full((7, 9, 1), 255, dtype=np.uint8)
    alpha[0] = 0
    turned = read(np.concatenate([ARRAY, alpha], 2))
    assert torch.equal(turned[:, 1:], TENSOR[:, 1:])
    assert bool((turned[:, 0] == 255).all())


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (ARRAY.transpose(2, 0, 1), "give array.transpose(1, 2, 0)"),
        (torch.from_numpy(ARRAY), "give tensor.permute(2, 0, 1)"),
        (np.zeros((3, 5, 3), np.uint8), "could be that of the channels"),
        (np.zeros((5, 6, 2), np.uint8), "give (height, width, 3)"),
        (np.zeros((5,), np.uint8), "has the shape (5,)"),
        (np.zeros((0, 5, 3), np.uint8), "has the shape (0, 5, 3)"),
        (np.full((5, 6), 255.0), "run from 255 to 255, but must from 0 to 1: divide"),
        (np.full((5, 6), -0.5), "before they are normalised"),
        (np.full((5, 6), np.nan), "run from nan"),
        (np.zeros((5, 6), np.int64), "is of int64"),
    ],
)
def test_what_could_be_two_pictures_is_refused(picture: Any, sentence: str) -> None:
    with pytest.raises(DataError) as raised:
        read(picture)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith(("picture 0 ", "The floats of picture 0 "))


@pytest.mark.parametrize(
    ("value", "kind"),
    [(3, "int"), (b"\x89PNG", "bytes"), ([[1, 2]], "list"), ({"a": 1}.values(), "int")],
)
def test_what_is_no_picture_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(DataError, match=f"A {kind} is no picture: give "):
        list(listed(value))


def test_folders_and_patterns_hold_many(file: Path) -> None:
    (file.parent / "below").mkdir()
    for name in ("b.jpg", "below/c.png", "notes.txt"):
        Image.fromarray(ARRAY).save(file.parent / name, "PNG")
    names = [item.name for item in listed([file.parent, f"{file.parent}/*.jpg", file])]
    expected = ["a.png", "b.jpg", "below/c.png", "b.jpg", "a.png"]
    assert names == [str(file.parent / name) for name in expected]
    below = [item.name for item in listed(f"{file.parent}/**/c.*")]
    assert below == [str(file.parent / "below" / "c.png")]


def test_a_pattern_of_any_depth_names_each_picture_once(file: Path) -> None:
    folder = file.parent
    (folder / "below").mkdir()
    (folder / "below" / "b.png").write_bytes(file.read_bytes())
    (folder / "below" / "around").symlink_to(folder)
    both = [str(file), str(folder / "below" / "b.png")]
    assert [item.name for item in listed(f"{folder}/**/*.png")] == both
    assert [item.name for item in listed(f"{folder}/**") if item.content] == both


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.png", "There is no file or folder"),
        ("", "An empty name is no picture"),
        ("*.tiff", "No file has a name of the form"),
        ("[1].png", "For a [ in a name write [[]."),
        ("empty", "holds no picture: "),
        ("raw", "a.nef is in a format that is not read: save it as PNG or JPEG"),
        ("raw/a.nef", "is in a format that is not read"),
        ("a.pdf", "cannot be read as an image: its content is none of JPEG"),
        ("cut.png", "cannot be read as an image: "),
        ("s3://bucket/a.png", "an address"),
        pytest.param(
            "pipe.png",
            "is a pipe, socket or device, from which no picture is read",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes"),
        ),
    ],
)
def test_what_cannot_be_read_is_said_of_its_name(name: str, sentence: str, file: Path) -> None:
    folder = file.parent
    (folder / "empty").mkdir()
    (folder / "raw").mkdir()
    (folder / "raw" / "a.nef").write_bytes(b"x")
    (folder / "a.pdf").write_bytes(b"%PDF-1.7\n")
    (folder / "cut.png").write_bytes(file.read_bytes()[:-30])
    if name == "pipe.png":
        os.mkfifo(folder / name)
    (item,) = listed(name if not name or "://" in name else str(folder / name))
    with pytest.raises(DataError) as raised:
        item.read()
    assert sentence in str(raised.value)


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (item,) = listed(tmp_path / "a.gif")
    pixels, note = item.read()
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert note == "the first of 3 pictures in the file"
