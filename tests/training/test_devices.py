"""Compute settings: which memory format is chosen, and which is refused."""

from pathlib import Path

import pytest

from understudy.config.recipe import Recipe
from understudy.errors import RecipeError
from understudy.experiment.setup import set_up


def thin(channels: int, channels_last: bool | None, size: int = 48) -> Recipe:
    """A student whose shortcut is a 1×1 convolution with stride 2 of so many channels."""
    return Recipe.load(
        {
            "student": {
                "name": "resnet8",
                "size": size,
                "options": {"widths": [16, 16, channels, 8]},
            },
            "data": {"source": "fashion", "images": 20},
            "training": {"epochs": 1, "batch": 20, "channels_last": channels_last},
        }
    )


@pytest.mark.parametrize(("channels", "channels_last"), [(15, False), (16, True)])
def test_thin_strided_shortcuts_compute_in_channels_first(
    tmp_path: Path, channels: int, channels_last: bool
) -> None:
    small = set_up(thin(channels, None, size=16), "cpu", folder=tmp_path).settings
    assert small.channels_last
    settings = set_up(thin(channels, None), "cpu", folder=tmp_path).settings
    assert settings.channels_last == channels_last


def test_channels_last_is_refused_where_torch_damages_memory(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"writes outside its memory.*channels_last"):
        set_up(thin(4, True), "cpu", folder=tmp_path)
    set_up(thin(4, False), "cpu", folder=tmp_path)
