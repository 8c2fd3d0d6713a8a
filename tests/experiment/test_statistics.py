"""The statistics of a verdict, checked against textbook arithmetic, and the words they lead to."""

import json
import math
import warnings
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import RunError
from understudy.experiment.statistics import Verdict, verdict

# Two-sided 95 % quantile of Student's t with 2 degrees of freedom, from any printed table.
T_2 = 4.302653


def of(arm, control, teacher=None, **options) -> Verdict:
    return verdict(arm, control, teacher, **{"name": "kd", "metric": "top1", **options})


def test_interval_is_the_paired_t():
    differences = [1.0, 1.2, 1.7]
    control = [70.0, 75.0, 60.0]
    found = of([c + d for c, d in zip(control, differences, strict=True)], control)
    mean = sum(differences) / 3
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2)
    half = T_2 * deviation / math.sqrt(3)
    assert found.difference == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=1e-5)
    assert found.p is not None
    assert 0.01 < found.p < 0.05
    assert found.word == "gain"


def test_sentence_of_a_gain():
    found = of([77.1, 77.3, 77.2], [70.0, 70.1, 69.9], 88.0)
    assert found.gap_closed == pytest.approx(7.2 / 18)
    assert found.sentence == (
        "kd is 7.2 points above the control (95 % interval 7.0 to 7.4, 3 seeds) "
        "and closes 40 % of the gap to the teacher."
    )


def test_no_gain_if_the_interval_holds_zero():
    found = of([70.0, 71.0, 69.0], [70.0, 69.0, 70.0], 80.0)
    assert found.word == "no gain"
    assert found.sentence.startswith("No gain could be shown: kd is 0.3 points above the control")
    assert "gap" not in found.sentence


def test_loss_if_the_interval_lies_below_zero():
    found = of([60.0, 60.2, 60.1], [70.0, 70.1, 70.2], 80.0)
    assert found.word == "loss"
    assert found.gap_closed is not None
    assert found.gap_closed < 0
    assert found.sentence.startswith("kd is significantly worse: 10.0 points below the control")


def test_one_seed_proves_nothing():
    found = of([75.0], [70.0], 80.0)
    assert (found.low, found.high, found.p, found.word) == (None, None, None, "one seed")
    assert found.gap_closed == pytest.approx(0.5)
    assert found.sentence == (
        "kd is 5.0 points above the control with one seed, "
        "which proves nothing: run at least three."
    )


@pytest.mark.parametrize(
    ("shift", "word", "p"), [(0.0, "no gain", 1.0), (0.1, "gain", 0.0), (-0.1, "loss", 0.0)]
)
def test_differences_without_spread(shift, word, p):
    control = [70.1, 70.2, 70.3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of([c + shift for c in control], control)
    assert (found.word, found.p) == (word, p)
    assert (found.low, found.high) == pytest.approx((shift, shift))


def test_lower_is_better():
    found = of([0.50, 0.52, 0.51], [0.81, 0.80, 0.82], 0.2, metric="loss", higher_is_better=False)
    assert found.word == "gain"
    assert found.gap_closed == pytest.approx(0.3 / 0.61)
    assert found.sentence.startswith(
        "kd is 0.30 below the control in loss (95 % interval −0.34 to −0.26"
    )


def test_fidelity_has_no_points():
    found = of([0.81, 0.82], [0.70, 0.70], metric="cka")
    assert found.sentence.startswith("kd is 0.12 above the control in cka (95 % interval 0.05")


@pytest.mark.parametrize("teacher", [None, 70.0, 60.0])
def test_no_gap_without_a_better_teacher(teacher):
    found = of([75.0, 75.1], [70.0, 70.0], teacher)
    assert found.gap_closed is None
    assert "teacher" not in found.sentence


def test_overtaking_the_teacher():
    assert "overtakes the teacher" in of([81.0, 81.1], [70.0, 70.0], 75.0).sentence


def test_small_ends_stay_visible():
    assert "interval 0.08 to 0.32" in of([70.3, 70.2, 70.1], [70.1, 70.05, 69.85], 80.0).sentence


def test_seeds_must_pair():
    with pytest.raises(RunError, match="kd has 2 and the control 3"):
        of([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(RunError, match="not finite"):
        of([1.0, math.nan], [1.0, 2.0])


accuracies = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=5)


@given(accuracies, st.none() | st.floats(0, 100))
def test_every_verdict_is_finite_json(pairs, teacher):
    arm, control = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of(arm, control, teacher)
    json.dumps(asdict(found), allow_nan=False)
    if found.low is not None and found.high is not None:
        assert found.low <= found.difference + 1e-9
        assert found.difference <= found.high + 1e-9
