"""Commands that install what a part of Understudy needs."""

from importlib import metadata

import pytest

from understudy.config.extras import installation

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
