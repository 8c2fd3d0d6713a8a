"""Damaged and missing directories: either read as far as they are whole, or refused in words."""

import json
import shutil

import pytest

from tests.support.report_directories import write_comparison, write_json, write_run
from understudy.errors import RunError
from understudy.experiment.run_directory import Run
from understudy.reporting import report
from understudy.reporting.collect import read
from understudy.reporting.results import duration


def test_half_written_last_line_is_left_out(tmp_path):
    write_run(tmp_path, epochs=4)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert [record["epoch"] for record in Run.open(tmp_path).history] == [1, 2, 3]


def test_damage_in_the_middle_is_an_error(tmp_path):
    write_run(tmp_path, epochs=4)
    file = tmp_path / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][:20]
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RunError, match=r"Line 2 of .*metrics\.jsonl"):
        report(tmp_path)


def test_no_run_there(tmp_path):
    with pytest.raises(RunError, match=r"no run at .*: it holds no metrics\.jsonl"):
        report(tmp_path)
    with pytest.raises(RunError, match=r"no run at .*: it does not exist"):
        report(tmp_path / "nowhere")


def test_nothing_named():
    with pytest.raises(RunError, match="nothing to report on"):
        report([])


def test_run_of_a_comparison_is_missing(tmp_path):
    write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    shutil.rmtree(tmp_path / "kd" / "seed1")
    with pytest.raises(RunError, match=r"kd.seed1: it does not exist"):
        report(tmp_path)


def test_damaged_json(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    for key in ("metric", "arms"):
        whole = {name: value for name, value in content.items() if name != key}
        write_json(tmp_path / "comparison.json", whole)
        with pytest.raises(RunError, match=f"has no {key}: it is damaged"):
            report(tmp_path)
    (tmp_path / "comparison.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="is not JSON"):
        report(tmp_path)


def test_a_comparison_can_be_moved(tmp_path):
    write_comparison(tmp_path / "old", arms=("control", "kd"), epochs=1)
    (tmp_path / "old").rename(tmp_path / "new")
    assert [len(arm.runs) for arm in read([tmp_path / "new"]).arms] == [0, 3, 3]


def test_control_with_nothing_measured_against_the_teacher(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=2)
    content["arms"][0]["fidelity"] = None
    write_json(tmp_path / "comparison.json", content)
    lines = (tmp_path / "control/seed0/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) | {"fidelity": None} for line in lines]
    (tmp_path / "control/seed0/metrics.jsonl").write_text(
        "\n".join(map(json.dumps, records)), encoding="utf-8"
    )
    row = next(
        line
        for line in report(tmp_path).with_suffix(".md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| control")
    )
    assert [cell.strip() for cell in row.split("|")][3:9] == ["–"] * 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.23, "8.2 s"), (81, "81 s"), (492, "8.2 min"), (5999, "100.0 min"), (9000, "2.5 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
