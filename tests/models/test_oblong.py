"""Networks at images that are no squares: features, their layout and their shapes."""

import pytest
import torch
from torch import nn

from understudy import models
from understudy.errors import NetworkError
from understudy.models import Input, Network

SIZE = (128, 64)
VIT = {"img_size": list(SIZE), "depth": 2, "embed_dim": 32, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:test_resnet", {}),
        ("timm:test_efficientnet", {}),
        ("timm:test_convnext", {}),
        # Its maps have their channels last.
        ("timm:mambaout_femto", {"depths": [1, 1, 1, 1], "dims": [12, 12, 12, 12]}),
        ("resnet8", {}),
        ("torchvision:mobilenet_v3_small", {}),
    ],
)
def test_features_are_those_of_squares_with_other_sides(
    name: str, options: dict[str, object]
) -> None:
    oblong = models.find(name, options=options, size=SIZE, num_classes=3).eval()
    square = models.find(name, options=options, size=128, num_classes=3)
    assert oblong.taps == square.taps
    features = oblong.features(torch.rand(2, 3, 100, 100))
    for feature, shape in oblong.shapes.items():
        assert tuple(features[feature].shape[1:]) == shape
        if len(shape) == 3:
            channels, height, width = square.shapes[feature]
            assert shape == (channels, height, max(width // 2, 1))


def test_a_transformer_has_an_oblong_grid() -> None:
    network = models.find("timm:deit_tiny_patch16_224", options=VIT, size=SIZE)
    assert network.shapes["patches"] == (32, 8, 4)
    assert network.shapes["stage2"] == (33, 32)
    assert network.shapes.grids["stage2"].size(33) == (8, 4)


def test_a_layout_that_no_shape_tells_is_refused() -> None:
    options = {**SWIN, "img_size": [224, 112]}
    with pytest.raises(NetworkError, match=r"\(56, 28, 8\), with their channels last"):
        models.find("timm:swin_tiny_patch4_window7_224", options=options, size=(224, 112))


def test_a_network_of_one_size_needs_no_square() -> None:
    """Its maps have their channels first, as its linear layer reads 8 × 16 × 8 values."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 8, 5), nn.Linear(5, 2)
    )
    network = Network(module, input=Input(size=SIZE))
    assert network(torch.rand(2, 3, *SIZE)).shape == (2, 2)
    assert network.shapes["penultimate"] == (5,)
