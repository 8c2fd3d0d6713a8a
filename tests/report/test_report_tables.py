"""The same cells in Markdown and in the terminal."""

import json

import pytest
from rich.console import Console

from understudy.report import report, terminal_table
from understudy.report.results import read
from understudy.report.tables import columns, count, table


@pytest.fixture(scope="module")
def content(comparison):
    return json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))


def test_markdown_is_aligned(comparison):
    text = report(comparison).with_suffix(".md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 9
    bars = {tuple(i for i, character in enumerate(row) if character == "|") for row in rows}
    assert len(bars) == 1
    assert rows[0].split()[1:3] == ["arm", "|"]
    assert set(rows[1]) == set("|-: ")


def test_markdown_states_verdicts_and_facts(comparison, content):
    text = report(comparison).with_suffix(".md").read_text(encoding="utf-8")
    for arm in content["arms"][1:]:
        assert f"- {arm['verdict']['sentence']}\n" in text
    assert "- recipe digest: 0123456789ab\n" in text


def test_cells(comparison, content):
    results = read([comparison])
    header, *rows = table(results)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    lshfm = next(arm for arm in content["arms"] if arm["name"] == "lshfm")
    verdict = lshfm["verdict"]
    ends = f"[{verdict['low']:.2f}, {verdict['high']:.2f}]"
    assert cells["lshfm"]["difference"] == f"+{verdict['difference']:.2f} {ends}"
    assert cells["lshfm"]["parameters"] == "78 k (+16.6 k)"
    assert cells["lshfm"]["memory"] == "812 MB"
    assert cells["lshfm"]["time"] == "4.1 min"
    assert cells["letkd"]["difference"].startswith("−2.")
    assert cells["teacher"]["top-1"] == "90.03"
    assert cells["teacher"]["difference"] == cells["control"]["difference"] == "–"


def test_every_column_is_explained(comparison):
    assert all(len(column.meaning) > 10 for column in columns(read([comparison])))


def test_terminal_table_fits_into_80_characters(content):
    console = Console(width=80, record=True)
    with console.capture() as capture:
        console.print(terminal_table(content))
    text = capture.get()
    assert "…" not in text
    for arm in content["arms"][1:]:
        assert f"[{arm['verdict']['low']:.2f}".replace("-", "−") in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999, "999"), (78_042, "78 k"), (999_600, "1 M"), (25_557_032, "25.6 M")],
)
def test_count(number, text):
    assert count(number) == text
