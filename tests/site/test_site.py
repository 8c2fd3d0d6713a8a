"""The site builds strictly, without the network, and nothing of it is forgotten."""

import logging
import os
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import understudy
from tests.site.page_blocks import ROOT
from understudy import methods
from understudy.cli.commands import COMMANDS

MISSING = [name for name in ("mkdocs", "material", "mkdocstrings") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

if TYPE_CHECKING:
    from _pytest.tmpdir import TempPathFactory

DEMANDS = 33


class Loaded(HTMLParser):
    """Addresses that a browser loads when it opens a page: scripts, styles, pictures, fonts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        loads = tag in ("script", "img", "iframe", "source") or (
            tag == "link" and named.get("rel") in ("stylesheet", "icon", "preload", "preconnect")
        )
        if loads:
            self.addresses += [named.get("src") or named.get("href") or ""]


@pytest.fixture(scope="module")
def site(tmp_path_factory: "TempPathFactory") -> Path:
    """The folder of the site, built strictly: a warning is an error."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    build(config)
    return folder


def text_of(site: Path, page: str) -> str:
    """The HTML of a page."""
    return (site / page).read_text(encoding="utf-8")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert not [x for x in loaded.addresses if re.match(r"(https?:)?//", x)], page
    styles = "".join(x.read_text(encoding="utf-8") for x in site.rglob("*.css"))
    assert not re.search(r"url\(\s*[\"']?(https?:)?//", styles)


def test_every_method_has_a_card_with_its_equation_and_limits(site: Path) -> None:
    for name in methods.names():
        card = text_of(site, f"methods/{name}.html")
        assert re.search(r"<code>L\w* *=", card), name
        for section in ("hyper-parameters", "published-recipes", "measured-here"):
            assert f'id="{section}"' in card, name
        for key in methods.hyper_parameters(methods.find(name)):
            assert re.search(f"<code[^>]*>{key}</code>", card), f"{name}: {key}"


def test_every_command_and_every_public_name_is_there(site: Path) -> None:
    commands = text_of(site, "command_line.html")
    for name in COMMANDS:
        assert f'<h2 id="{name}"' in commands
    api = text_of(site, "api.html")
    for name in set(understudy.__all__) - {"__version__", "data", "methods", "models", "tasks"}:
        assert f'id="understudy.{name}"' in api, name


def test_every_demand_is_answered(site: Path) -> None:
    heads = re.findall(r'<h2 id="(\d+)-', text_of(site, "faq.html"))
    assert heads == [str(number) for number in range(1, DEMANDS + 1)]


def test_notebooks_show_what_their_cells_print(site: Path) -> None:
    assert "metrics.top1" in text_of(site, "notebooks/own_pictures.html")
    assert "epoch 3" in text_of(site, "notebooks/own_loop.html")
    for book in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert '"outputs": []' in book.read_text(encoding="utf-8"), "outputs are made at the build"


def test_what_was_measured_is_in_the_table(site: Path) -> None:
    page = text_of(site, "choose.html")
    assert "<!-- generated" not in page
    assert "<strong>+17.1" in page
