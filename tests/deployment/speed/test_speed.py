"""Size and latency: networks of the same layers share a row, whatever their weights."""

from dataclasses import replace

import torch
from torch import nn

from understudy.deployment.speed.latency import Candidate, Speeds, measure
from understudy.deployment.speed.speed_table import facts, notes, speed_rows
from understudy.reporting.speed_section import markdown_section


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(36 * width, 2)).eval()


def candidate(name: str, width: int) -> Candidate:
    return Candidate(name, f"width {width}", network(width), torch.zeros(3, 8, 8))


def test_networks_of_the_same_layers_share_a_row() -> None:
    speeds = measure([candidate("teacher", 8), candidate("control", 2), candidate("student", 2)])
    assert [row.names for row in speeds.rows] == [["teacher"], ["control", "student"]]
    row = speeds.of("student")
    assert row is not None
    assert row.parameters == 2 * 28 + 2 * 73
    assert row.macs == 36 * 27 * 2 + 72 * 2
    assert row.bytes == {"fp32": 4 * row.parameters}
    assert [(t.runtime, t.precision, t.batch) for t in row.times] == [
        ("torch", "fp32", 1),
        ("torch", "fp32", 32),
    ]
    assert all(time.ms > 0 for time in row.times)
    assert speeds.of("kd") is None


def test_figures_are_read_as_they_are_written() -> None:
    speeds = measure([candidate("student", 2)])
    assert Speeds.from_dict(speeds.to_dict()) == speeds


def test_the_table_has_a_row_for_every_network() -> None:
    speeds = measure([candidate("teacher", 8), candidate("student", 2)])
    header, teacher, _ = speed_rows(speeds)
    assert header[:5] == ["network of", "network", "parameters", "size", "MACs"]
    assert header[5:] == ["torch, 1 image", "torch, 32 images"]
    assert teacher[:3] == ["teacher", "width 8", "802"]
    assert "images of 8 × 8 pixels" in facts(speeds)


def test_what_was_not_measured_is_said_beside_the_table() -> None:
    speeds = measure([candidate("student", 2)])
    missing = "teacher not measured: there is no file t.pth"
    row = replace(speeds.rows[0], notes=["a batch of 32 takes over 2 s and was not timed"])
    speeds = replace(speeds, notes=[missing], rows=[row])
    assert notes(speeds) == [missing, f"student: {row.notes[0]}"]
    assert missing in markdown_section(speeds)
