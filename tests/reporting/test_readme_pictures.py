"""The pictures of README.md: drawn from the measurement, small, and refused in words."""

import json
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from understudy.reporting.collect import of_comparison

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "results" / "pictures.py"))


@pytest.fixture(scope="module")
def content():
    return json.loads((ROOT / "results" / "demo.json").read_text(encoding="utf-8"))


def test_the_committed_chart_is_that_of_the_measurement(script, content):
    drawn = script["differences"](of_comparison(content))
    assert (FOLDER / "differences.svg").read_text(encoding="utf-8") == drawn
    assert len(drawn) < 60_000


def test_the_chart_shows_every_arm_and_cuts_nothing_off(script, content):
    root = ElementTree.fromstring(script["differences"](of_comparison(content)))
    texts = [element for element in root.iter() if element.tag.endswith("}text")]
    words = [element.text for element in texts]
    for arm in content["arms"][1:]:
        assert arm["name"] in words
        assert any(f"{arm['verdict']['difference']:+.2f} [" in word for word in words)
    for element in texts:
        width = 0.62 * float(element.get("font-size")) * len(element.text)
        left = (
            float(element.get("x"))
            - {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")] * width
        )
        assert left >= 0
        assert left + width <= float(root.get("width"))


def test_the_committed_screenshot_is_small(script):
    file = FOLDER / "report.png"
    assert file.stat().st_size < 150_000
    with Image.open(file) as picture:
        assert picture.size == script["WINDOW"]


def test_without_a_browser_the_script_says_what_is_missing(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not script["screenshot"]("<p>page", tmp_path / "report.png")
    assert "report.png is unchanged: drawing it takes Chromium" in capsys.readouterr().out
    assert not (tmp_path / "report.png").exists()
