"""Names are shown as they are: no name is markup of the terminal, of Markdown or of HTML."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.report_directories import write_comparison, write_json
from understudy.comparison.result import Comparison
from understudy.experiment.plain_table import escaped
from understudy.reporting import report, terminal_table

NAMES = ["[/x]", "[red] a|b*c* <b>bold</b>", "`x` $x_ _y_ [a](http://b) # c"]


@pytest.mark.parametrize("name", NAMES)
def test_every_table_and_page_shows_a_name_as_it_is(name: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(write_comparison(tmp_path, arms=("control", "kd"), seeds=3)))
    content["name"] = content["teacher"]["name"] = content["arms"][1]["name"] = name
    content["arms"][1]["verdict"]["sentence"] = f"{name} gains."
    content["classes"][0] = name
    write_json(tmp_path / "comparison.json", content)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(terminal_table(content))
    assert capture.get().count(name) == 2  # the title, and the row of the arm
    page = report(tmp_path)
    html = page.read_text(encoding="utf-8")
    assert "<b>bold" not in html
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    assert f"# {escaped(name)}\n" in text
    assert f"- {escaped(name)} gains." in text
    assert escaped(name).replace("|", "\\|") in Comparison.load(tmp_path).table()


def test_markdown_loses_no_character_and_means_none() -> None:
    assert escaped("a_b kd+nd 1.5 %") == "a_b kd+nd 1.5 %"
    assert escaped("_a_ *b*\n[c]") == r"\_a\_ \*b\* \[c\]"
