from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from understudy.data._image import decode, sides_of
from understudy.errors import DataError


def saved(path: Path, image: Image.Image, **options: object) -> torch.Tensor:
    image.save(path, **options)
    return decode(path)


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (4, 3), colour)


@pytest.mark.parametrize(
    ("image", "name", "colour"),
    [
        (flat("L", 90), "grey.png", (90, 90, 90)),
        (flat("1", 1), "bits.png", (255, 255, 255)),
        (flat("RGB", (10, 20, 30)).quantize(2), "palette.png", (10, 20, 30)),
        (flat("RGBA", (10, 20, 30, 255)), "opaque.png", (10, 20, 30)),
        (flat("RGBA", (10, 20, 30, 0)), "clear.png", (255, 255, 255)),
        (flat("LA", (90, 255)), "grey_alpha.png", (90, 90, 90)),
        (flat("CMYK", (0, 0, 0, 0)), "print.tif", (255, 255, 255)),
        (flat("CMYK", (0, 255, 255, 0)), "red.tif", (255, 0, 0)),
        (flat("I;16", 0x8040), "deep.png", (128, 128, 128)),
        (flat("I;16", 0xFFFF), "deep.tif", (255, 255, 255)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, image: Image.Image, name: str, colour: tuple[int, int, int]
) -> None:
    found = saved(tmp_path / name, image)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 3, 4)
    assert (found == torch.tensor(colour)[:, None, None]).all()


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 0)
    image.putpalette([10, 20, 30])
    assert (saved(tmp_path / "a.png", image, transparency=0) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:, :8, 0] = 200
    upright[:4, :, 2] = 120
    # How a camera that notes this orientation stores an upright scene.
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    image = Image.fromarray(upright)
    if orientation in stored:
        image = image.transpose(Image.Transpose(stored[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = saved(tmp_path / "a.png", image, exif=exif)
    assert torch.equal(found, torch.from_numpy(upright).permute(2, 0, 1))
    assert sides_of(tmp_path / "a.png") == (8, 16)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\nbut not really"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image: [^<]*$"):
        decode(path)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        sides_of(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_a_truncated_image_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read"):
        decode(path)


@pytest.mark.parametrize(
    ("kind", "value", "grey"),
    [
        ("float32", 1.0, 255),
        ("float32", 0.5, 128),
        ("float32", 254.9, 255),
        ("float32", 4095.0, 255),
        ("float32", 65535.0, 255),
        ("float32", 20000.0, 78),
        ("int32", 200, 200),
        ("int32", 4095, 255),
        ("int32", 65535, 255),
        ("uint16", 200, 200),
        ("uint16", 2048, 128),
        ("uint16", 0x8040, 128),
    ],
)
def test_deep_values_are_scaled(tmp_path: Path, kind: str, value: float, grey: int) -> None:
    pixels = np.zeros((3, 4), kind)
    pixels[1, 2] = value
    for name in ("a.tif", "a.png")[: 2 if kind == "uint16" else 1]:
        result = saved(tmp_path / name, Image.fromarray(pixels))
        assert result[:, 1, 2].tolist() == [grey] * 3
        assert int(result.int().sum()) == 3 * grey


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 70000.0])
@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_values_without_a_known_white_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    pixels = np.full((3, 4), 0.5, kind)
    pixels[1, 1] = value if np.isfinite(value) or kind == "float32" else 2**30
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif .*white is not known; save it with 8 or 16 bits"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [1.0001, 1.5])
def test_fractions_just_above_one_are_not_read_as_black(tmp_path: Path, value: float) -> None:
    pixels = np.full((3, 4), 0.5, "float32")
    pixels[1, 1] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"from 0\.5 to 1\..*white is not known"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_only_listed_formats_are_opened(tmp_path: Path, form: str) -> None:
    path = tmp_path / "photo.jpg"
    flat("RGB", (10, 20, 30)).save(path, form)
    for read in (decode, sides_of):
        with pytest.raises(DataError, match=r"photo\.jpg cannot be read as an image"):
            read(path)
