"""The statistics of a verdict, checked against textbook arithmetic, and the words they lead to."""

import json
import math
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from understudy.comparison.statistics import (
    ImageSpread,
    Scores,
    Verdict,
    holm,
    verdict,
    verdicts,
)
from understudy.errors import RunError

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
        "kd is 7.2 points above the control (95 % interval 7.0 to 7.4, 3 seeds, test images left "
        "out) and closes 40 % of the gap to the teacher."
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
    assert (found.low, found.high, found.p, found.word) == (None, None, None, "too few seeds")
    assert found.gap_closed == pytest.approx(0.5)
    assert found.sentence == (
        "kd is 5.0 points above the control with one seed, "
        "which proves nothing: run at least three."
    )


@pytest.mark.parametrize("shift", [0.0, 0.1, -0.1])
def test_seeds_that_differ_by_the_same_number_give_no_interval(shift):
    control = [70.1, 70.2, 70.3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of([c + shift for c in control], control)
    assert (found.word, found.low, found.high, found.p) == ("no gain", None, None, None)
    assert "the same for all seeds, which gives no interval" in found.sentence


def test_seeds_that_differ_by_the_same_four_images_are_no_gain():
    """Two seeds that differ by four of 372 images, alike, once gave an interval without width."""
    found = of([20.43, 16.40], [19.35, 15.32], 41.13)
    assert found.word == "too few seeds"
    assert (found.low, found.high) == (None, None)
    control = np.zeros((3, 372), dtype=bool)
    arm = control.copy()
    arm[:, :4] = True
    percent = [100 * 4 / 372] * 3
    found = of(percent, [0.0] * 3, images=ImageSpread.paired(arm, control))
    assert found.word == "no gain"
    assert found.low is not None
    assert found.low < 0


def test_two_seeds_have_an_interval_but_no_verdict():
    found = of([80.0, 80.2], [70.0, 70.1])
    assert found.word == "too few seeds"
    assert found.low is not None
    assert found.low > 0
    assert found.sentence.endswith("too few for a verdict: run at least three seeds.")


def test_the_interval_adds_both_variances():
    spread = ImageSpread(variance=0.04, images=500, how="resampled")
    arm, control = [71.0, 71.2, 71.7], [70.0, 70.0, 70.0]
    alone, both = of(arm, control), of(arm, control, images=spread)
    assert alone.high is not None
    assert both.high is not None
    half = alone.high - alone.difference
    assert both.high - both.difference == pytest.approx(math.sqrt(half**2 + 1.959964**2 * 0.04))
    assert (both.images, both.image_error) == (500, pytest.approx(0.2))
    assert "3 seeds × 500 images" in both.sentence


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    spread = ImageSpread(variance=0.04, images=500, how="resampled")
    found = of([70.5, 70.7, 70.9], [70.0, 70.0, 70.0], images=spread)
    assert found.p is not None
    seeds = 0.2**2 / 3
    t, z = stats.t.isf(found.p / 2, 2), stats.norm.isf(found.p / 2)
    assert math.sqrt(t**2 * seeds + z**2 * 0.04) == pytest.approx(found.difference, rel=1e-6)


def test_paired_images_by_hand():
    arm = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], dtype=bool)
    control = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 1, 1]], dtype=bool)
    change = [0.5, 0.0, 0.5, 0.0, -0.5]
    mean = sum(change) / 5
    by_hand = (sum(c * c for c in change) + 2 - 5 * mean**2) / 25
    assert ImageSpread.paired(arm, control).variance == pytest.approx(100**2 * by_hand)


def test_holm_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert corrected == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})


def test_the_best_of_many_needs_a_smaller_p():
    control = [70.0, 70.0, 70.0]
    near = Scores([70.5, 70.7, 71.1])
    assert verdicts({"kd": near}, control, None, metric="top1")["kd"].word == "gain"
    others = {f"other{i}": Scores([69.9, 70.2, 70.0]) for i in range(4)}
    judged = verdicts({"kd": near} | others, control, None, metric="top1")["kd"]
    assert judged.word == "no gain"
    assert judged.p is not None
    assert judged.p < 0.05
    assert "corrected for 5 methods" in judged.sentence


def test_lower_is_better():
    found = of([0.50, 0.52, 0.51], [0.81, 0.80, 0.82], 0.2, metric="loss", higher_is_better=False)
    assert found.word == "gain"
    assert found.gap_closed == pytest.approx(0.3 / 0.61)
    assert found.sentence.startswith(
        "kd is 0.30 below the control in loss (95 % interval −0.34 to −0.26"
    )


def test_fidelity_has_no_points():
    found = of([0.81, 0.82, 0.815], [0.70, 0.70, 0.70], metric="cka")
    assert found.sentence.startswith("kd is 0.12 above the control in cka (95 % interval 0.10")


@pytest.mark.parametrize("teacher", [None, 70.0, 60.0])
def test_no_gap_without_a_better_teacher(teacher):
    found = of([75.0, 75.1], [70.0, 70.0], teacher)
    assert found.gap_closed is None
    assert "teacher" not in found.sentence


def test_overtaking_the_teacher():
    assert "overtakes the teacher" in of([81.0, 81.1, 81.2], [70.0, 70.0, 70.0], 75.0).sentence


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


@pytest.mark.parametrize("other", ["71.2", None, [70.0]])
@pytest.mark.parametrize("who", ["kd", "the control"])
def test_values_that_are_no_numbers_are_named(who, other):
    values = {name: [70.0, 71.0, 72.0] for name in ("kd", "the control")}
    values[who] = [70.0, other, 72.0]
    with pytest.raises(RunError, match=f"top1 of {who} holds .*; give one number for each seed"):
        verdict(*values.values(), None, name="kd", metric="top1")
