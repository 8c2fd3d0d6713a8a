"""Commands that install what a part of Understudy needs."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import understudy
from understudy.config.extras import installation

SOURCES = Path(understudy.__file__).parents[1]

LISTED = [
    "torch>=2.6",
    "torch>=2.8; extra == 'export'",
    'onnx>=1.17; extra == "export"',
    "optuna>=4; extra == 'tune'",
    "onnx>=1.17; extra == 'dev'",
]


def test_an_extra_is_installed_by_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: LISTED)
    assert installation("export") == "pip install 'torch>=2.8' 'onnx>=1.17'"
    assert installation("tune") == "pip install 'optuna>=4'"


def test_an_extra_that_was_not_installed_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: LISTED)
    assert installation("remote") == "pip install '.[remote]' in the checkout of Understudy"


def test_sources_that_are_not_installed_name_their_checkout() -> None:
    """Without installed packages there is no metadata to read either."""
    lines = "from understudy.config.extras import installation; print(installation('tune'))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    printed = subprocess.check_output(
        [sys.executable, "-S", "-c", lines], text=True, env=environment
    )
    assert printed == "pip install '.[tune]' in the checkout of Understudy\n"
