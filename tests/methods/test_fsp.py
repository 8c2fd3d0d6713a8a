"""Flow of the solution procedure against plain loops."""

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import batch
from understudy.errors import ShapeError
from understudy.methods.fsp import FSP, flow

SIZES = {"stem": (2, 4, 4), "stage1": (3, 4, 4), "stage2": (4, 2, 2)}


def flows(first: torch.Tensor, second: torch.Tensor) -> list[float]:
    """Entries of the flow between two maps of equal size."""
    x, y = first.flatten(1).tolist(), second.flatten(1).tolist()
    return [sum(a * b for a, b in zip(c, d, strict=True)) / len(c) for c in x for d in y]


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **SIZES), random(3, **SIZES)
    expected = 0.0
    for i in range(3):
        for first, second in (("stem", "stage1"), ("stage1", "stage2")):
            entries = []
            for x in (student, teacher):
                a, b = x[first][i], x[second][i]
                if second == "stage2":
                    a = a.unflatten(2, (2, 2)).unflatten(1, (2, 2)).mean((2, 4))
                entries.append(flows(a, b))
            gaps = [(s - t) ** 2 for s, t in zip(*entries, strict=True)]
            expected += sum(gaps) / len(gaps) / 3
    net = shapes("net", **SIZES)
    assert FSP(net, net)(student, teacher, batch(3)).item() == pytest.approx(expected)


def test_sizes_of_the_networks_may_differ() -> None:
    small = {name: (c, h // 2, w // 2) for name, (c, h, w) in SIZES.items()}
    method = FSP(shapes("s", **small), shapes("t", **SIZES))
    assert method(random(2, **small), random(2, **SIZES), batch(2)).isfinite()
    assert method.reads == tuple(SIZES)


def test_flow_of_a_map_to_itself_is_its_second_moment() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.einsum("bchw,bdhw->bcd", x, x) / 16
    torch.testing.assert_close(flow(x, x), expected)


def test_says_which_channels_differ_and_that_one_map_is_too_few() -> None:
    net, other = shapes("net", **SIZES), shapes("other", **(SIZES | {"stage2": (5, 2, 2)}))
    with pytest.raises(ShapeError, match="'stage2' of net has 4 and 'stage2' of other has 5"):
        FSP(net, other)
    assert FSP(net, other, stages=("stem", "stage1")).reads == ("stem", "stage1")
    with pytest.raises(ShapeError, match="at least two"):
        FSP(net, net, stages=("stage1",))
