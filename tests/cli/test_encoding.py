"""The command line prints to a file of another encoding than UTF-8, as Windows makes them."""

import io
import sys

import pytest

from understudy.cli.commands import main


def test_characters_that_an_encoding_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    main(["list", "recipes"])
    sys.stdout.flush()
    text = raw.getvalue().decode("cp1252")
    assert "fashion/demo" in text
    assert "?vgg16" in text  # behind an arrow
