"""SemCKD against plain loops, and batches of any size."""

from math import exp, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import RecipeError, ShapeError
from understudy.methods.semckd import SemCKD, similarities

SIZES = {"stage1": (2, 4, 4), "stage2": (3, 2, 2)}, {"stage1": (3, 4, 4), "stage2": (2, 4, 4)}
STUDENT, TEACHER = shapes("student", **SIZES[0]), shapes("teacher", **SIZES[1])


def embedded(layer: nn.Module, maps: Tensor, image: int, count: int) -> list[float]:
    rows = maps.flatten(1).tolist()
    own = [sum(a * b for a, b in zip(rows[image], row, strict=True)) for row in rows]
    largest = (sorted(own, reverse=True) + count * [0.0])[:count]
    out = layer(torch.tensor(largest, dtype=torch.float64)).tolist()
    return [v / sqrt(sum(w * w for w in out)) for v in out]


@pytest.mark.parametrize("rows", [3, 10])
def test_equals_the_formula_in_plain_loops(rows: int) -> None:
    method = SemCKD(STUDENT, TEACHER, neighbours=8).double().eval().requires_grad_(False)
    student, teacher = (random(rows, **sizes) for sizes in SIZES)
    names = ("stage1", "stage2")
    total = 0.0
    for i in range(rows):
        keys = [embedded(k, teacher[m], i, 8) for k, m in zip(method.keys, names, strict=True)]
        for number, name in enumerate(names):
            query = embedded(method.queries[number], student[name], i, 8)
            energy = [exp(sum(a * b for a, b in zip(query, k, strict=True))) for k in keys]
            for other, theirs in enumerate(names):
                s, t = student[name][i : i + 1], teacher[theirs][i : i + 1]
                t = F.adaptive_avg_pool2d(t, min(s.shape[2], t.shape[2]))
                s = F.adaptive_avg_pool2d(s, t.shape[2])
                ours = method.regressors[2 * number + other](s).flatten().tolist()
                pairs = zip(ours, t.flatten().tolist(), strict=True)
                error = sum((a - b) ** 2 for a, b in pairs) / t.numel()
                total += energy[other] / sum(energy) * error / 2
    assert method(student, teacher, batch(rows)).item() == pytest.approx(total / rows)


def test_similarities_are_sorted_cut_and_padded() -> None:
    x = torch.tensor([[1.0], [2.0], [3.0]]).view(3, 1, 1, 1)
    assert similarities(x, 4)[1].tolist() == [6, 4, 2, 0]
    assert similarities(x, 2)[1].tolist() == [6, 4]


def test_attention_learns_from_the_student_too() -> None:
    method = SemCKD(STUDENT, TEACHER, neighbours=8).double()
    student, teacher = (random(4, **sizes) for sizes in SIZES)
    method(student, teacher, batch(4)).backward()
    for layer in (*method.queries, *method.keys):
        assert layer[0].weight.grad.any()


def test_says_what_it_cannot_compare() -> None:
    with pytest.raises(ShapeError, match="no stages"):
        SemCKD(shapes("flat", penultimate=3), TEACHER)
    with pytest.raises(RecipeError, match=r"'SemCKD\.neighbours'"):
        SemCKD(STUDENT, TEACHER, neighbours=3)
