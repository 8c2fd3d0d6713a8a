import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.own_cache import own_cache as own_cache


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
