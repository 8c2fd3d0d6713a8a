"""Pictures of direction and norm: true to what was kept, and left out where nothing was."""

import re

import numpy as np
import pytest

from tests.reporting.test_page import read as read_page
from tests.support.report_directories import diagnosed, write_comparison, write_json, write_run
from understudy.reporting import report
from understudy.reporting.charts.dot_plot import Measured, dot_plot
from understudy.reporting.charts.feature_geometry import feature_geometry
from understudy.reporting.charts.hash_agreement import joined
from understudy.reporting.charts.ridge_plot import ridge_plot, shares
from understudy.reporting.collect import read
from understudy.reporting.results import TEACHER, Arm

ARM = Arm("kd", "method", "c0")


@pytest.fixture
def runs(tmp_path):
    """Directories of two runs with different students of one teacher."""
    write_run(tmp_path / "runs/kd", diagnostics=diagnosed())
    write_run(tmp_path / "runs/pefd", diagnostics=diagnosed(scale=2, projects=True))
    return [tmp_path / "runs/kd", tmp_path / "runs/pefd"]


def histogram(values, low, high, bins=8):
    counts, _ = np.histogram(values, bins, (low, high))
    return {"low": low, "high": high, "counts": counts.tolist(), "mean": float(np.mean(values))}


def test_other_bins_hold_the_same_images():
    values = np.random.default_rng(0).uniform(2, 4, 5000)
    found = shares(histogram(values, 2, 4), np.linspace(0, 8, 17))
    assert found.sum() == pytest.approx(1)
    assert found[4:8] == pytest.approx(np.histogram(values, np.linspace(2, 4, 5))[0] / 5000)
    assert found[8:] == pytest.approx(0)


def test_ridge_peaks_where_the_images_are():
    values = np.random.default_rng(0).normal(5, 0.5, 5000)
    one, two = histogram(values, 3, 7, 64), histogram(values + 4, 7, 11, 64)
    picture = ridge_plot("", "", [(TEACHER, [one]), (ARM, [two, two])])
    for row in picture.rows:
        points = [
            tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.]+", row.outline)
        ]
        assert min(points, key=lambda point: point[1])[0] == pytest.approx(row.position, abs=6)
        assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in points)
    assert [row.mean for row in picture.rows] == pytest.approx([5, 9], abs=0.05)
    assert picture.reference == picture.rows[0].outline
    places, values = zip(*((place, float(text)) for place, text in picture.ticks), strict=True)
    assert picture.rows[1].position == pytest.approx(np.interp(9, values, places), abs=1)


def test_far_arms_share_a_log_axis():
    values = np.random.default_rng(0).uniform(1, 2, 500)
    near, far = histogram(values, 1, 2), histogram(100 * values, 100, 200)
    picture = ridge_plot("", "", [(ARM, [near]), (ARM, [far])])
    places = [place for place, text in picture.ticks if text in ("1", "10", "100")]
    assert np.diff(places).tolist() == pytest.approx([np.diff(places)[0]] * (len(places) - 1), 0.1)
    assert picture.rows[1].position - picture.rows[0].position == pytest.approx(87, abs=4)


def test_dots_lie_where_the_numbers_say():
    found = dot_plot("", "", [Measured(TEACHER, [0.2]), Measured(ARM, [0.4, 0.6], [0.7])])
    teacher, arm = found.rows
    assert found.line == teacher.own.position == 2
    assert arm.own.position == pytest.approx(2 + 96 * 0.3 / 0.5)
    assert arm.own.seeds == pytest.approx([2 + 96 * 0.2 / 0.5, 2 + 96 * 0.4 / 0.5])
    assert arm.projected.position == 98
    assert arm.span == pytest.approx((arm.own.position, 98 - arm.own.position))
    assert arm.text == "0.500 → 0.700"


def test_nothing_to_compare_is_no_picture():
    assert dot_plot("", "", [Measured(ARM, [0.4])]) is None
    assert ridge_plot("", "", [(TEACHER, [histogram(np.ones(3), 0, 2)]), (ARM, [])]) is None


def test_seeds_are_joined_by_angle():
    one = {"angle": [10.5, 13.0], "agreement": [0.9, 0.8], "images": [1000, 1]}
    two = {"angle": [11.5], "agreement": [0.6], "images": [3000]}
    (row,) = joined([one, two])
    assert row == pytest.approx((11.25, 0.675, 4000))


def test_pictures_of_runs(runs):
    found = feature_geometry(read(runs))
    assert [arm.name for arm in found.arms] == ["teacher", "kd", "pefd"]
    norm, to_teacher, to_class_mean = found.ridges
    assert [row.arm.name for row in norm.rows] == ["teacher", "kd", "pefd"]
    assert norm.rows[2].mean == pytest.approx(2 * norm.rows[1].mean)
    assert [row.arm.name for row in to_teacher.rows] == ["kd", "pefd"]
    assert [row.arm.name for row in to_class_mean.rows] == ["teacher", "kd", "pefd"]
    titles = [picture.title for picture in found.dots]
    assert titles[2:] == ["Projector: CKA, penultimate", "Projector: cosine, penultimate"]
    kd, pefd = found.dots[2].rows
    assert kd.own.value == pytest.approx(read(runs).arms[0].fidelity["cka"][0])
    assert (kd.projected, pefd.own.value, pefd.projected.value) == (None, 0.5, 0.75)
    assert found.unmeasured == []


def test_page_shows_the_pictures(runs):
    html, page, text = read_page(report(runs))
    assert html.count("<figure>") == 4 + 3 + 1 + 4
    assert "0.500 → 0.750" in text
    mean = diagnosed()["student"]["norm"]["mean"]
    assert f"{mean:.3g}" in text
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    assert len(page.ids) == len(set(page.ids))
    assert not re.findall(r"\b(nan|None|inf)\b", html)


def test_features_of_other_dimension_have_no_angle(tmp_path):
    write_run(tmp_path, angles=False, diagnostics=diagnosed(dim=8, projects=True))
    found = feature_geometry(read([tmp_path]))
    assert [picture.title for picture in found.ridges] == ["Feature norm"]
    assert found.bits is None
    assert [p.title for p in found.dots][2:] == ["Projector: CKA, penultimate"]


def test_runs_from_before_are_named(tmp_path):
    content = write_comparison(tmp_path, arms=("control", "kd"), epochs=1)
    assert "Not drawn" in read_page(report(tmp_path))[2]
    for name in content["arms"][0]["runs"]:
        write_json(tmp_path / name / "diagnostics.json", diagnosed())
    html, _, text = read_page(report(tmp_path))
    assert "(no diagnostics.json): kd." in text
    assert html.count('class="shape"') == 2 + 1 + 2


def test_no_section_without_a_teacher(tmp_path):
    write_run(tmp_path, fidelity=False)
    assert "Direction and norm of the features" not in read_page(report(tmp_path))[2]


def test_runs_of_different_teachers_share_no_reference(runs):
    other = diagnosed()
    other["teacher"]["norm"]["mean"] *= 2
    write_json(runs[0] / "diagnostics.json", other)
    found = feature_geometry(read(runs))
    assert [arm.name for arm in found.arms] == ["kd", "pefd"]
    assert {picture.reference for picture in found.ridges} == {""}


def test_template_maps(tmp_path):
    kept = diagnosed()
    grid = [[[0, 0], [0, 7]], [[3, 3], [3, 3]]]
    place = {"student": grid, "teacher": grid, "agreement": 0.375}
    alone = place | {"teacher": None, "agreement": None}
    kept["templates"] = {
        "method": "letkd",
        "images": ["AA//AA==", "BBBB"],
        "places": {"intermediate": place, "penultimate": alone},
    }
    write_run(tmp_path, diagnostics=kept)
    html, page, text = read_page(report(tmp_path))
    drawings = re.findall(r'<svg class="templates".*?</svg>', html, flags=re.DOTALL)
    assert [svg.count("<use") for svg in drawings] == [4, 2]
    assert [svg.count("<path") for svg in drawings] == [2 * (2 + 1), 2 + 1]
    assert 'd="M0 0h1v1h-1zM1 0h1v1h-1zM0 1h1v1h-1z"' in drawings[0]
    assert "at 38 % of the locations" in text
    outside = [a for a in page.addresses if not a.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert len(page.ids) == len(set(page.ids))
