"""Nearest neighbours in plain loops, ties, few rows; linear probes on data of known answer."""

from math import exp, sqrt

import pytest
import torch

from understudy.experiment.fidelity import evaluation
from understudy.metrics import linear_probe
from understudy.metrics.neighbours import knn_accuracy, knn_scores, nearest, overlap, purity
from understudy.tasks.none import Unlabelled


def cosine(a: list[float], b: list[float]) -> float:
    lengths = [sqrt(sum(x * x for x in each)) or 1 for each in (a, b)]
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths[0] / lengths[1]


@pytest.mark.parametrize("k", [1, 4, 9, 50])
def test_votes_equal_plain_loops_also_with_more_neighbours_than_rows(k: int) -> None:
    stored, queries = torch.randn(9, 3).double(), torch.randn(5, 3).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])
    scores = knn_scores(nearest(queries, stored, k), labels, 3, k=k)
    for query, row in zip(queries.tolist(), scores, strict=True):
        pairs = zip(stored.tolist(), labels.tolist(), strict=True)
        near = sorted((cosine(query, s), y) for s, y in pairs)
        expected = [0.0] * 3
        for similarity, y in near[::-1][:k]:
            expected[y] += exp(similarity / 0.07)
        assert row.tolist() == pytest.approx(expected)


def test_ties_go_to_the_smaller_number_and_a_row_is_not_its_own_neighbour() -> None:
    x = torch.tensor([[1.0, 0], [1, 0], [2, 0], [0, 1]])
    assert nearest(x[:1], x, 3).rows.tolist() == [[0, 1, 2]]
    near = nearest(x, x, 2, leave_out_self=True)
    assert near.rows[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert nearest(x, x, 99, leave_out_self=True).rows.shape == (4, 3)
    assert nearest(x[:1], x[:1], 5, leave_out_self=True).rows.shape == (1, 0)
    assert nearest(x[:0], x, 2).rows.shape == (0, 2)
    even = torch.ones(2, 3)
    assert knn_accuracy(even, torch.tensor([0, 2])) == 0.5
    assert purity(near, torch.tensor([0, 0, 1, 1]), 2) == pytest.approx((0.5 + 0.5 + 0 + 0.0) / 4)


def test_zero_rows_are_far_from_all_and_harmless() -> None:
    x = torch.cat([torch.zeros(2, 3), torch.randn(6, 3)])
    near = nearest(x, x, 3, leave_out_self=True)
    assert near.cosine.isfinite().all()
    assert not near.cosine[0].any()


def test_the_same_neighbours_whatever_the_scale_and_rotation() -> None:
    x = torch.randn(40, 5).double()
    turn = torch.linalg.qr(torch.randn(5, 5).double()).Q
    near, again = (nearest(each, each, 7, leave_out_self=True) for each in (x, 3 * x @ turn))
    assert overlap(near, again).tolist() == [1.0] * 40
    other = nearest(torch.randn(40, 5).double(), x, 7)
    assert 0 < overlap(near, other).mean() < 0.6


def test_a_probe_finds_what_a_line_can_tell_and_no_more() -> None:
    labels = torch.arange(200) % 2
    x = torch.randn(200, 4)
    x[:, 0] = (2.0 * labels - 1) * (0.2 + x[:, 0].abs())
    x[:, 3] = 7
    probe = linear_probe.fit(x, labels, 2)
    assert (probe.scores(x).argmax(1) == labels).float().mean() > 0.98
    assert (linear_probe.predicted_by_folds(x, labels, 2) == labels).float().mean() > 0.95
    assert torch.equal(linear_probe.fit(100 * x, labels, 2).scores(100 * x).argmax(1), labels)
    drawn = linear_probe.predicted_by_folds(torch.randn(200, 4), labels, 2) == labels
    assert 0.3 < drawn.float().mean() < 0.7


def test_the_task_measures_what_is_at_hand() -> None:
    task = Unlabelled()
    x, index = torch.randn(60, 4), torch.arange(60)
    outputs = {"penultimate": x, "labels": torch.full((60,), -1), "index": index}
    bare = evaluation(task, outputs, {"": outputs}, finished=True)
    assert bare.metrics == {}
    assert bare.fidelity["knn_agreement"] == 1
    assert task.judged_by(bare.metrics) == "knn_agreement"
    kept = task.outcomes(outputs, outputs)
    assert (kept.metric, kept.resampled[0]) == ("knn_agreement", pytest.approx(1))
    some = outputs | {"labels": torch.where(index < 40, (x[:, 0] > 0).long(), -1)}
    measured = task.measure(some, finished=True)
    assert set(measured.metrics) == {"knn", "linear"}
    assert measured.metrics["linear"] > 80
    assert measured.fidelity is None
    kept = task.outcomes(some)
    assert (kept.images, kept.correct.count("1") / 0.4) == (40, measured.metrics["knn"])
    assert task.measure(outputs | {"labels": torch.zeros(60).long()}, finished=True).metrics == {}
