"""The page of a reproduction: well-formed, self-contained, and true to the numbers."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.test_page import read
from tests.support.report_directories import write_json
from understudy.errors import RunError
from understudy.reporting import report
from understudy.reporting.reproduction_page import lines, terminal_table, title
from understudy.reproduction.published import Published, judged
from understudy.reproduction.result import FILE, Reproduction


def row(name: str, figure: float | None, scores: list[float], **more: Any) -> dict[str, Any]:
    deviation = more.pop("published_deviation", None)
    text = "" if figure is None else f"{figure:.2f}" + (f" ± {deviation}" if deviation else "")
    published = Published(text, figure, deviation, "last", "5", "72.34", "A 2020: table 1", "")
    judgement = judged(published, scores, {})
    return {
        "name": name,
        "recipe_digest": "0123456789ab",
        "published": vars(published),
        "protocol": "240 epochs, batch 64; last epoch; mean of 5 runs",
        "seeds": list(range(len(scores))),
        "runs": [],
        "last": scores,
        "best": [None] * len(scores),
        "epoch": "last",
        "scores": scores,
        "teacher": None,
        "mark": judgement.mark,
        "reason": judgement.reason,
        "deviation": judgement.deviation,
        "differences": ["teacher 72.10, published 72.34"],
        "state": "finished" if scores else "not run (predicted 3.0 h)",
        "predicted_seconds": None,
    } | more


@pytest.fixture
def result(tmp_path: Path) -> Reproduction:
    content = {
        "table": "cifar100/<kd>",
        "metric": "top1",
        "epochs_scale": 1.0,
        "overrides": {},
        "seeds": [0, 1, 2],
        "machine": "2 cores",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 10.0,
        "rows": [
            row("near", 70.0, [70.0, 70.2, 70.4]),
            row("far", 71.0, [70.0], published_deviation=0.2),
            row("single", 72.0, [71.5]),
            row("later", 73.0, []),
            row("unpublished", None, [60.0]),
        ],
        "teachers": [
            {"name": "resnet56", "recipe_digest": "ba", "published": "72.34", "score": 72.1}
        ],
    }
    write_json(tmp_path / FILE, content)
    return Reproduction.load(tmp_path)


def test_the_page_tells_what_was_reproduced(result: Reproduction) -> None:
    path = report(result)
    html, page, text = read(path)
    assert "//" not in html
    assert all(address.startswith("#") for address in page.addresses)
    assert "cifar100/&lt;kd&gt;" in html
    assert "1 of 2 rows of cifar100/<kd> lie within two standard deviations" in text
    assert "Not judged: one seed, and no published deviation, 1 row; not run, 1 row; " in text
    assert "not run (predicted 3.0 h)" in text
    assert "Teacher resnet56: 72.10 (published: 72.34)." in text
    assert [cell for cell in ("+0.20", "−1.00", "−0.50") if cell not in text] == []
    markdown = path.with_suffix(".md").read_text()
    assert markdown == result.markdown()
    assert len(re.findall(r"^\|", markdown, re.MULTILINE)) == 2 + len(result.rows)


def test_the_chart_has_a_line_for_every_row_with_a_difference(result: Reproduction) -> None:
    chart, ticks = lines(result)
    assert (50.0, "0") in ticks
    assert [line.name for line in chart] == ["near", "far", "single"]
    near, far, single = chart
    assert near.zero == 50
    assert near.dot > 50 > far.dot
    assert near.band is not None
    assert near.band[0] + near.band[1] / 2 == pytest.approx(50, abs=0.01)
    assert single.band is None
    assert all(0 <= place <= 100 for line in chart for place in (line.dot, *line.seeds))
    start, width = near.band
    assert start < near.dot < start + width
    assert not far.band or not far.band[0] < far.dot < sum(far.band)


def test_the_table_of_the_terminal(result: Reproduction) -> None:
    marks = list(terminal_table(result).columns[-1].cells)
    assert marks[:3] == ["within 2 sd", "outside 2 sd", "cannot be said"]
    assert marks[3] == "not run (predicted 3.0 h)"


def test_nothing_is_claimed_before_anything_ran(result: Reproduction) -> None:
    empty = Reproduction(**{**vars(result), "rows": [row("later", 73.0, [])]})
    assert title(empty) == "No row of cifar100/<kd> can be judged yet."
    assert lines(empty)[0] == []
    assert "later" in empty.to_table()


def test_a_directory_without_a_reproduction(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"it has no reproduction\.json"):
        Reproduction.load(tmp_path)
    write_json(tmp_path / FILE, {"table": "x"})
    with pytest.raises(RunError, match="reproduce again in another --out"):
        Reproduction.load(tmp_path)
