"""Classes of a network in another order: the logits are those of before, in that order."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.support.small_detectors import FAMILIES, detector, scene
from understudy.errors import NetworkError
from understudy.models import Input, Network, find
from understudy.models.base import Wrapped
from understudy.models.detection.classes import class_layers


def distilled() -> nn.Module:
    net = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=4, img_size=32, depth=1)
    for head in (net.head, net.head_dist):
        nn.init.normal_(head.weight)
    return net


class Cosine(nn.Module):
    """Logits by a layer that is not linear: the order of its rows is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)
        self.mix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x)) @ self.mix
        return logits


class Keyed(nn.Module):
    """Logits beside other outputs, of which the first is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(x)
        return {"features": features.mean((2, 3)), "logits": self.head(features.mean((2, 3)))}


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: find("resnet8", num_classes=4, options={"widths": [4, 4, 8, 8]}).module,
    "two heads": distilled,
    "beside other outputs": Keyed,
    "convolution": lambda: torchvision.models.squeezenet1_1(num_classes=4),
}


@pytest.mark.parametrize("rows", [[2, 0, 3, 1], [3, 1]])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_follow_the_order(name: str, rows: list[int]) -> None:
    torch.manual_seed(0)
    network, images = (
        Network(NETWORKS[name](), input=Input(size=32)).eval(),
        torch.rand(3, 3, 32, 32),
    )
    with torch.no_grad():
        before = network(images)
        network.select_classes(rows)
        features = network.features(images)
    assert torch.allclose(features["logits"], before[:, rows], atol=1e-6)
    assert network.num_classes == network.shapes.width("logits") == len(rows)


def test_an_unknown_head_is_refused_and_unchanged() -> None:
    network, images = (
        Network(Cosine(), input=Input(size=32), classifier="head"),
        torch.rand(3, 3, 32, 32),
    )
    before = network.eval()(images)
    with pytest.raises(NetworkError, match="cannot be put in another order"):
        network.select_classes([1, 0, 2, 3])
    assert torch.equal(network(images), before)


def test_names_make_equal_numbers_different() -> None:
    pair: list[Wrapped] = [find("resnet8", num_classes=2) for _ in range(2)]
    assert pair[0].same_classes(pair[1])
    pair[0].class_names = ("a", "b")
    assert pair[0].same_classes(pair[1])
    pair[1].class_names = ("b", "a")
    assert not pair[0].same_classes(pair[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_detectors_find_the_same_boxes(family: str) -> None:
    network, rows = detector(family, "resnet18").eval(), [2, 0, 1]
    for layer in class_layers(network.module).values():
        nn.init.normal_(layer.weight, std=0.1)
        nn.init.zeros_(layer.bias)
    before = network.outputs(scene())
    assert len(before["classes"])
    network.select_classes(rows)
    after = network.eval().outputs(scene())
    for new, old in enumerate(rows):
        scores, boxes = (
            [x[key][x["classes"] == k] for x, k in ((after, new), (before, old))]
            for key in ("scores", "boxes")
        )
        assert torch.allclose(scores[0], scores[1], atol=1e-5)
        assert torch.allclose(boxes[0], boxes[1], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_detectors_drop_classes(family: str) -> None:
    network = detector(family, "resnet18")
    widths = {name: shape[0] for name, shape in network.shapes.items() if "logits" in name}
    network.select_classes([1])
    assert network.num_classes == 1
    smaller = {name: shape[0] for name, shape in network.shapes.items() if "logits" in name}
    assert smaller == {name: width * 2 // 4 for name, width in widths.items()}
    assert len(network.eval().outputs(scene())["image"]) >= 0
