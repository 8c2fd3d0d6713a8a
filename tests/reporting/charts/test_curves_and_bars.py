"""What the curves and bars show, before it is drawn."""

import json
import re
from pathlib import Path

import pytest

from tests.support.report_directories import CLASSES, write_comparison, write_json
from understudy.experiment.run_directory import Run
from understudy.reporting import report
from understudy.reporting.charts.differences import changes, intervals
from understudy.reporting.charts.style import percent_axis
from understudy.reporting.charts.training_curves import band, training_curves
from understudy.reporting.collect import read


def run(values, tmp_path):
    records = [
        {"epoch": epoch, "metrics": None if value is None else {"top1": value}}
        for epoch, value in enumerate(values, 1)
    ]
    folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return Run(folder)


def test_band_is_the_mean_and_range_of_shared_epochs(tmp_path):
    runs = [run([10.0, None, 30.0, 40.0], tmp_path), run([20.0, None, 50.0], tmp_path)]
    found = band(runs, "metrics", "top1")
    assert found.epochs == [1, 3]
    assert found.middle == [15.0, 40.0]
    assert (found.low, found.high) == ([10.0, 30.0], [20.0, 50.0])


def test_infinite_loss_is_a_hole(tmp_path):
    assert band([run([1.0, float("nan"), 3.0], tmp_path)], "metrics", "top1").epochs == [1, 3]


def test_titles_of_curves(comparison):
    drawn = training_curves(read([comparison]))
    assert [curve.title for curve in drawn] == [
        "Test top-1",
        "Cosine to the teacher",
        "Norm ratio",
        "Total training loss",
    ]


def test_losses_of_different_size_share_a_log_axis(tmp_path):
    write_comparison(tmp_path, arms=("control", "kd"), epochs=3)
    results = read([tmp_path])
    run = results.arms[2].runs[0]
    records = run.history
    for record in records:
        record["losses"]["total"] *= 1e4
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    ticks = re.findall(r"<text[^>]*>(\S+)</text>", training_curves(results)[-1].svg)
    assert {"10", "100", "1000", "10000"} <= set(ticks)


def test_intervals_lie_where_the_numbers_say(comparison):
    chart = intervals(read([comparison]))
    assert chart is not None
    rows = chart.rows
    assert [row.arm.name for row in rows] == ["lshfm", "pefd", "kd", "nd", "letkd"]
    for row in rows:
        assert row.ends is not None
        assert row.ends[0] < row.dot < row.ends[1]
        assert len(row.seeds) == 3
        assert all(2 <= place <= 98 for place in [*row.ends, *row.seeds])
    gain, harm = rows[0], rows[-1]
    assert harm.ends is not None
    assert gain.ends is not None
    assert harm.ends[1] < harm.zero == gain.zero < gain.ends[0]
    assert (gain.zero, "0") in chart.ticks


def test_ticks_of_an_axis_stand_where_their_values_lie() -> None:
    axis = percent_axis([-2.0, 0.0, 8.5], signs=True)
    assert [text for _, text in axis.ticks] == ["−2", "0", "+2", "+4", "+6", "+8"]
    for position, text in axis.ticks:
        assert axis(float(text.replace("−", "-"))) == position
    assert [text for _, text in percent_axis([0.3]).ticks]


def test_classes_have_the_number_of_their_test_images(tmp_path: Path) -> None:
    write_comparison(tmp_path, arms=("control", "kd"), epochs=1, classes=["cat", "dog"])
    for run in tmp_path.glob("*/seed*"):
        write_json(run / "diagnostics.json", {"confusion": [[3, 1], [0, 12]]})
    (change,) = changes(read([tmp_path]))
    assert {bar.name: bar.images for bar in change.gained} == {"cat": 4, "dog": 12}
    html = report(tmp_path).read_text(encoding="utf-8")
    assert "cat <small>4</small>" in html
    assert "that of its test images" in html


def test_changes_are_sorted_paired_means(comparison):
    results = read([comparison])
    first = changes(results)[0]
    assert first.arm.name == "lshfm"
    differences = [change.difference for change in first.gained]
    assert differences == sorted(differences, reverse=True)
    assert {change.name for change in first.gained} == set(CLASSES)
    dress = next(change for change in first.gained if change.name == "dress")
    control = results.control
    assert control is not None
    assert dress.control == pytest.approx(sum(seed[3] for seed in control.per_class if seed[3]) / 3)


def test_class_without_images_is_left_out(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    for arm in content["arms"]:
        for seed in arm["per_class"]:
            seed[0] = None
    write_json(tmp_path / "comparison.json", content)
    (found,) = changes(read([tmp_path]))
    assert [c.name for c in found.gained if c.name == "T-shirt"] == []
    assert len(found.gained) == 9


def test_no_bars_without_results_by_class(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    for arm in content["arms"]:
        arm["per_class"] = None
    write_json(tmp_path / "comparison.json", content)
    assert changes(read([tmp_path])) == []
