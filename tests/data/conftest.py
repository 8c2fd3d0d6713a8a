import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Read when `datasets` is first imported, by the tests of this folder.
os.environ["HF_HUB_OFFLINE"] = "1"

# The machine that runs the tests may be busy: time per example says nothing here.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

Paint = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what Hugging Face would cache away from the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth picture, different for every seed, that survives JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Saves a picture under a relative name."""

    def save(name: str, *, seed: int = 0, size: tuple[int, int] = (80, 70)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed, size).save(path)
        return path

    return save


@pytest.fixture
def tree(tmp_path: Path, paint: Paint) -> Path:
    """A folder with train (3 cats, 3 dogs) and val (1 of each)."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(3):
            paint(f"train/{name}/{i}.png", seed=10 * label + i, size=(80 + i, 70))
        paint(f"val/{name}/0.jpg", seed=100 + label)
    return tmp_path


@pytest.fixture
def unpacked() -> Callable[[str], Path]:
    """Finds a folder of real images below the one that UNDERSTUDY_IMAGES names, or skips."""

    def find(name: str) -> Path:
        top = Path(os.environ.get("UNDERSTUDY_IMAGES", "nowhere"))
        found = [each for each in (*top.glob(f"*/{name}"), top / name) if each.is_dir()]
        if not found:
            pytest.skip(f"set UNDERSTUDY_IMAGES to a folder that holds {name}")
        return found[0]

    return find
