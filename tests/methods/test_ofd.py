"""The overhaul of feature distillation against plain loops, and its margins."""

import math

import pytest
import torch

from tests.support.forms import random, shapes
from tests.vectors.build import Outputs, batch
from understudy.methods.ofd import OFD, normal_margin, ofd

OURS = {"stage1": (3, 4, 4), "stage2": (4, 2, 2)}
OURS |= {f"{name}/preact": size for name, size in OURS.items()}
THEIRS = {"stage1": (2, 4, 4), "stage2": (5, 4, 4)}
THEIRS |= {f"{name}/preact": size for name, size in THEIRS.items()}


def element(s: float, t: float, g: float) -> float:
    """The published loss of one neuron."""
    if t > 0:
        return (s - t) ** 2
    if t > g:
        return (s - t) ** 2 if s > t else 0.0
    return (s - g) ** 2 if s > g else 0.0


def test_equals_the_formula_in_plain_loops() -> None:
    student, teacher = random(3, **OURS), random(3, **THEIRS)
    method = OFD(shapes("s", **OURS), shapes("t", **THEIRS)).double()
    method.prepare(Outputs(teacher))
    halved = teacher["stage2/preact"].unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    expected = 0.0
    for level, t in enumerate((teacher["stage1/preact"], halved)):
        s = method.connectors[level](student[f"stage{level + 1}/preact"])
        g = method.get_buffer(f"margin{level}").expand_as(t[0])
        for i in range(3):
            rows = (x.flatten().tolist() for x in (s[i], t[i], g))
            expected += 2.0 ** (level - 1) / 3 * sum(map(element, *rows))
    assert method(student, teacher, batch(3)).item() == pytest.approx(expected)


def test_margin_is_the_mean_of_the_negative_responses() -> None:
    teacher = random(40, **THEIRS)
    teacher["stage1/preact"][:, 1] = 1.0  # a channel that is never negative
    method = OFD(shapes("s", **OURS), shapes("t", **THEIRS)).double()
    method.prepare(Outputs(teacher))
    channel = teacher["stage1/preact"][:, 0]
    negative = [v for v in channel.flatten().tolist() if v < 0]
    first, second = method.get_buffer("margin0").flatten().tolist()
    assert first == pytest.approx(sum(negative) / len(negative))
    assert second == 0


def test_normal_margin_of_normal_responses_is_the_measured_one() -> None:
    sizes = {"stage1/preact": (2, 8, 8), "stage1": (2, 8, 8)}
    teacher = random(400, **sizes)
    teacher["stage1/preact"] = 2 * teacher["stage1/preact"] + 0.5
    net, margins = shapes("net", **sizes), []
    for kind in ("measured", "normal"):
        method = OFD(net, net, margin=kind).double()
        method.prepare(Outputs(teacher))
        margins.append(method.get_buffer("margin0").flatten())
    torch.testing.assert_close(*margins, rtol=0.03, atol=0)


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.5), (-2.0, 0.1), (0.3, -0.5)])
def test_normal_margin_is_a_mean_over_the_negative_part(mean: float, std: float) -> None:
    steps = 200_000
    lowest = mean - 12 * abs(std)
    width = (0 - lowest) / steps
    xs = [lowest + (n + 0.5) * width for n in range(steps)]
    weights = [math.exp(-(((x - mean) / std) ** 2) / 2) for x in xs]
    expected = sum(x * w for x, w in zip(xs, weights, strict=True)) / sum(weights)
    found = normal_margin(torch.tensor([mean]).double(), torch.tensor([std]).double())
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_normal_margin_of_rare_or_no_negatives() -> None:
    mean, std = torch.tensor([4.0, 1.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert normal_margin(mean, std).tolist() == [-3, 0, -1, 0]


def test_a_student_below_the_margin_is_left_alone() -> None:
    margin = torch.tensor([-0.5]).view(1, 1, 1)
    s = torch.tensor([-3.0, -0.2, 0.4]).view(1, 1, 1, 3).requires_grad_()
    ofd(s, torch.full_like(s, -1.0).detach(), margin).sum().backward()
    assert s.grad.flatten().tolist() == pytest.approx([0, 0.6, 1.8])
