"""Pooling of the last map, in networks that average it by a layer, by a function or by timm."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as vision

from understudy import models
from understudy.errors import NetworkError
from understudy.models import Network
from understudy.models.pooling import Pool

NAMES = ("torchvision:resnet18", "torchvision:mobilenet_v2", "timm:resnet18", "resnet8", "vgg8")
SIDE = 64


def built(name: str, pool: Pool, **options: Any) -> Network:
    torch.manual_seed(0)
    return models.find(name, num_classes=5, size=SIDE, pool=pool, **options).eval()


def pooled(feature: Tensor, pool: Pool) -> Tensor:
    mean, largest = feature.mean((2, 3)), feature.flatten(2).amax(2)
    return {"": mean, "gap": mean, "gmp": largest, "gwp": (mean + largest) / 2}[pool]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE)


@pytest.mark.parametrize("pool", ["", "gap", "gmp", "gwp"])
@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_reads_the_pooled_map(name: str, pool: Pool, images: Tensor) -> None:
    network = built(name, pool)
    found = network.features(images)
    torch.testing.assert_close(found["penultimate"], pooled(found["penultimate/map"], pool))
    weight, bias = network.classifier_weight, network.classifier_bias
    assert weight is not None
    torch.testing.assert_close(
        found["logits"], nn.functional.linear(found["penultimate"], weight, bias)
    )


@pytest.mark.parametrize("name", NAMES)
def test_only_the_pooling_changes(name: str, images: Tensor) -> None:
    plain, largest = built(name, ""), built(name, "gmp")
    state = largest.module.state_dict()
    assert all(torch.equal(x, state.pop(key)) for key, x in plain.module.state_dict().items())
    assert not state
    assert largest.shapes == plain.shapes
    before, after = plain.features(images), largest.features(images)
    assert all(torch.equal(x, after[key]) for key, x in before.items() if x.ndim == 4)


def test_the_student_loads_without_understudy(images: Tensor) -> None:
    first = vision.resnet18(num_classes=5)
    first.avgpool = nn.AdaptiveMaxPool2d(1)
    second = vision.mobilenet_v2(num_classes=5)
    second.features.append(nn.AdaptiveMaxPool2d(1))
    third = timm.create_model("resnet18", num_classes=5, global_pool="max")
    for name, bare in zip(NAMES, (first, second, third), strict=False):
        student = built(name, "gmp").plain()
        bare.load_state_dict(student.state_dict())
        assert torch.equal(bare.eval()(images), student(images))


@pytest.mark.parametrize("name", NAMES)
def test_weights_load_whatever_the_pooling(name: str, tmp_path: Path, images: Tensor) -> None:
    save_file(built(name, "").module.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    again = models.find(
        name, num_classes=5, size=SIDE, pool="gwp", weights=str(tmp_path / "weights.safetensors")
    )
    torch.testing.assert_close(again.eval()(images), built(name, "gwp")(images))


def test_an_embedding_follows_the_pooling(images: Tensor) -> None:
    network = built("torchvision:resnet18", "gmp")
    network.embed(7)
    assert network.shapes.vector("penultimate") == 7
    folded = network.plain()
    expected = network.module.eval()(images)
    torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["torchvision:vgg11", "torchvision:densenet121"])
def test_networks_that_average_no_last_map_are_refused(name: str) -> None:
    with pytest.raises(NetworkError, match="no average of a last map"):
        built(name, "gmp")


def test_networks_that_timm_cannot_pool_so_are_refused() -> None:
    with pytest.raises(NetworkError, match="timm cannot build 'resmlp_12_224'"):
        built("timm:resmlp_12_224", "gwp")
