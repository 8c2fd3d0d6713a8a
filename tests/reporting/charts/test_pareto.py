"""The front: networks that no other one beats in time and metric."""

import re

import pytest

from understudy.reporting.charts.pareto import Point, _covered, front, pareto
from understudy.reporting.results import Arm

ARM = Arm("kd", "method", "c0")
POINTS = [("fast", 1.0, 60.0), ("best", 9.0, 80.0), ("slow", 10.0, 79.0), ("bad", 2.0, 59.0)]


def points(rows: list[tuple[str, float, float]]) -> list[Point]:
    return [Point(name, ARM, ms, value) for name, ms, value in rows]


@pytest.mark.parametrize(
    ("rows", "lower", "names"),
    [
        (POINTS, False, ["fast", "best"]),
        (POINTS, True, ["fast", "bad"]),
        ([("a", 1.0, 50.0), ("b", 1.0, 60.0)], False, ["b"]),
        ([("a", 1.0, 60.0), ("b", 2.0, 60.0)], False, ["a"]),
        ([], False, []),
    ],
)
def test_the_front(rows: list[tuple[str, float, float]], lower: bool, names: list[str]) -> None:
    assert [point.student for point in front(points(rows), lower=lower)] == names


def test_the_chart_names_every_student() -> None:
    chart = pareto(points(POINTS), "top1")
    assert chart is not None
    assert all(name in chart.svg for name, *_ in POINTS)


def test_equally_fast_networks_have_no_chart() -> None:
    assert pareto(points([("a", 1.0, 50.0), ("b", 1.0, 60.0)]), "top1") is None


def test_the_chart_has_the_unit_and_the_spread_of_its_metric() -> None:
    spread = [Point("a", ARM, 1.0, 50.0, 2.0), Point("b", ARM, 2.0, 60.0)]
    chart = pareto(spread, "top1")
    assert chart is not None
    assert "top-1 in percent" in chart.svg
    assert "standard deviation" in chart.caption


def test_times_and_names_are_legible_where_networks_are_close() -> None:
    """Of a wide range the axis names round times alone, and no name covers another or a mark."""
    rows = [("timm:a_long_name", 2.1, 83.0), ("lib:b_long_name", 2.3, 83.2), ("far", 40.0, 90.0)]
    chart = pareto(points(rows), "top1")
    assert chart is not None
    texts = re.findall(r">([^<>]+)</text>", chart.svg)
    assert {"2", "5", "10", "20", "50"} <= set(texts)
    assert not any("times" in text for text in texts)
    assert {"a_long_name", "b_long_name", "far"} <= set(texts)
    boxes, frame = [(0.0, 0.0, 10.0, 10.0)], (0.0, 0.0, 100.0, 100.0)
    assert _covered((0, 5, 10, 15), boxes, frame) == 50
    assert _covered((-5, 20, 5, 30), boxes, frame) == 50
    assert _covered((20, 20, 30, 30), boxes, frame) == 0
