"""A network to deploy has no class of Understudy, and computes the same as before."""

import pytest
import torch

from tests.support.small_detectors import detector
from understudy import models
from understudy.models import cifar
from understudy.models.library_modules import as_library_modules, own_classes

FAMILIES = [
    *("resnet8", "resnet50", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"),
]
"""One network of each file in the folder of the papers' networks."""


def test_every_file_of_networks_is_here() -> None:
    files = {factory.__module__ for factory in map(_class_of, FAMILIES)}
    assert files == {_class_of(name).__module__ for name in cifar.models()}


def _class_of(name: str) -> type:
    factory = cifar.models()[name]
    return getattr(factory, "func", factory)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_network_of_the_papers(name: str) -> None:
    torch.manual_seed(0)
    module = models.find(name, num_classes=4).plain()
    images = torch.rand(2, 3, 32, 32)
    before, names = module(images), module.state_dict().keys()
    assert own_classes(module)
    module = as_library_modules(module, 32)
    assert not own_classes(module)
    assert not module.training
    assert torch.equal(module(images), before)
    assert module.state_dict().keys() == names


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "timm:test_efficientnet"])
@torch.no_grad()
def test_a_detector_over_single_maps(backbone: str) -> None:
    module = detector("ssdlite", backbone).plain()
    images = [torch.rand(3, 64, 64)]
    (before,) = module(images)
    assert own_classes(module)
    (after,) = as_library_modules(module)(images)
    assert not own_classes(module)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_torchscript_reads_it() -> None:
    module = as_library_modules(models.find("resnet8", num_classes=4).plain())
    torch.jit.script(module)
