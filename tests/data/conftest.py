import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what would be cached away from the user's home."""
    monkeypatch.delenv("UNDERSTUDY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


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
