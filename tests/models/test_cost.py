"""Cost of networks and inserted layers, against numbers counted by hand."""

import pytest
import torch

from understudy import models
from understudy.methods.letkd import LetKD
from understudy.methods.simkd import SimKD
from understudy.models.cost import bare_cost, cost, macs


def test_a_plain_network_costs_what_the_papers_count() -> None:
    network = models.find("resnet20")
    found = cost(network)
    assert found.parameters == 278_324
    assert round(found.macs / 1e6, 1) == 40.8
    assert found.image_ms > 0
    assert bare_cost(network) is None


def test_layers_are_counted_beside_the_student_without_them() -> None:
    network = models.find("resnet20")
    LetKD.extend(network, network.shapes, places="both")
    whole, bare = cost(network), bare_cost(network)
    assert bare is not None
    assert bare.parameters == 278_324
    sizes = {"penultimate": 4096, "intermediate": 800}
    assert whole.parameters - bare.parameters == sum(2 * k * 64 + 2 * k + 2 for k in sizes.values())
    # 64 locations of 64 channels; the second convolution of the last layer runs once an image.
    inner = 64 * 64 * 800 * 2
    last = 64 * 64 * 4096 + 64 * 4096 + 64 * 4096
    assert whole.macs - bare.macs == inner + last


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet8x4"), ("resnet8x4", "wrn_16_2")]
)
def test_a_reused_head_is_counted_beside_the_students_own(student: str, teacher: str) -> None:
    network, alone = models.find(student), models.find(student)
    SimKD.extend(network, models.find(teacher).shapes)
    whole, bare, before = cost(network), bare_cost(network), cost(alone)
    assert bare is not None
    assert (bare.parameters, bare.macs) == (before.parameters, before.macs)
    assert whole.macs > bare.macs
    assert macs(network) == before.macs


def test_the_network_is_not_changed() -> None:
    network = models.find("resnet8")
    LetKD.extend(network, network.shapes, places="penultimate", words=8)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    cost(network)
    bare_cost(network)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert network.training
