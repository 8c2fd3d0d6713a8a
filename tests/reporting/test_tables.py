"""The same cells in Markdown and in the terminal."""

import json
from dataclasses import asdict
from statistics import mean

import pytest
from rich.console import Console

from tests.support.report_directories import write_comparison, write_json
from understudy.comparison.statistics import verdict
from understudy.experiment.plain_table import count
from understudy.reporting import evaluation_table, report, terminal_table
from understudy.reporting.collect import of_comparison, read
from understudy.reporting.columns import columns
from understudy.reporting.tables import seed_table, table


@pytest.fixture(scope="module")
def content(comparison):
    return json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))


def test_markdown_is_aligned(comparison):
    text = report(comparison).with_suffix(".md").read_text(encoding="utf-8")
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    rows, seeds = tables[:2]
    assert len(rows) == 9
    assert len(seeds) == 8
    assert [cell.strip() for cell in seeds[0].split("|")[2:-1]] == ["seed 0", "seed 1", "seed 2"]
    bars = {tuple(i for i, character in enumerate(row) if character == "|") for row in rows}
    assert len(bars) == 1
    assert rows[0].split()[1:3] == ["arm", "|"]
    assert set(rows[1]) == set("|-: ")


def test_single_seeds_are_paired_with_the_control(comparison, content):
    header, control, kd, *_ = seed_table(read([comparison]))
    tops = {arm["name"]: arm["metrics"]["top1"] for arm in content["arms"]}
    assert header == ["arm", "seed 0", "seed 1", "seed 2"]
    assert control == ["control", *(f"{value:.2f}" for value in tops["control"])]
    difference = tops["kd"][1] - tops["control"][1]
    assert kd[2] == f"{tops['kd'][1]:.2f} ({difference:+.2f})"


def test_the_time_of_the_teacher_has_a_label_of_its_own(comparison, content):
    shared = {**content, "teacher": content["teacher"] | {"seconds": 41.0}}
    header, *rows = table(of_comparison(shared))
    place = header.index("time per run")
    assert [row[place] for row in rows][:2] == ["41 s, once", "4.1 min"]
    text = printed(terminal_table(shared))
    assert "41 s" in text
    assert "time: of one run without the teacher's passes" in " ".join(text.split())
    assert "included" in printed(terminal_table(content))


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
    assert cells["lshfm"]["time per run"] == "4.1 min"
    assert cells["letkd"]["difference"].startswith("−2.")
    assert cells["teacher"]["top-1"] == "90.03"
    assert cells["teacher"]["difference"] == cells["control"]["difference"] == "–"


def test_every_column_is_explained(comparison):
    assert all(len(column.meaning) > 10 for column in columns(read([comparison])))


def printed(shown):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_terminal_table_fits_into_80_characters(comparison, content):
    text = printed(terminal_table(content))
    assert text == printed(terminal_table(comparison))
    assert "…" not in text
    for arm in content["arms"][1:]:
        assert f"[{arm['verdict']['low']:.2f}".replace("-", "−") in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999, "999"), (78_042, "78 k"), (999_600, "1 M"), (25_557_032, "25.6 M")],
)
def test_count(number, text):
    assert count(number) == text


def test_evaluation_table():
    fidelity = {"agreement": 0.912, "cosine": None, "cka": 0.8}
    evaluation = {"metrics": {"top1": 71.25}, "fidelity": fidelity, "parameters": 78_042}
    lines = [line.split() for line in printed(evaluation_table(evaluation)).splitlines()]
    assert ["top-1", "71.250"] in lines
    assert ["cosine", "–"] in lines
    assert ["CKA", "0.800"] in lines
    assert ["parameters", "78", "k"] in lines


LAYERS = {
    "student": {"parameters": 3000, "macs": 1_500_000, "image_ms": 0.4},
    "plain": {"parameters": 2000, "macs": 1_000_000, "image_ms": 0.1},
}


def test_layers_that_stay_are_shown_beside_the_plain_student(tmp_path):
    text = printed(evaluation_table({"metrics": {}, "fidelity": None, "layers": LAYERS}))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "parameters, with kept layers 3 k, × 1.5" in lines
    assert "multiplications, with kept layers 1.5 M, × 1.5" in lines
    assert "time per image, with kept layers 0.4 ms, × 4" in lines
    content = write_comparison(tmp_path, arms=("control", "letkd"), epochs=1)
    assert "kept layers" not in table(read([tmp_path]))[0]
    for run in content["arms"][1]["runs"]:
        file = tmp_path / run / "evaluation.json"
        write_json(file, json.loads(file.read_text(encoding="utf-8")) | {"layers": LAYERS})
    header, _, control, letkd = table(read([tmp_path]))
    place = header.index("kept layers")
    assert (control[place], letkd[place]) == ("–", "× 1.5, × 1.5, × 4")


def test_without_labels_fidelity_is_the_metric(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=2)
    content |= {"metric": "cka", "classes": []}
    content["teacher"] |= {"metrics": {}, "per_class": []}
    for arm in content["arms"]:
        arm |= {"metrics": {}, "per_class": [[], [], []]}
    ckas = [arm["fidelity"]["cka"] for arm in content["arms"]]
    content["arms"][1]["verdict"] = asdict(verdict(ckas[1], ckas[0], None, name="kd", metric="cka"))
    write_json(tmp_path / "comparison.json", content)
    header, _, _, kd = table(read([tmp_path]))
    assert header[:4] == ["arm", "CKA", "difference", "agreement"]
    assert kd[1].startswith(f"{mean(ckas[1]):.4f} ± 0.0")
    html = report(tmp_path).read_text(encoding="utf-8")
    assert "Test CKA" in html
    assert "kd is 0.0" in html
    assert "points" not in html
