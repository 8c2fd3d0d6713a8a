"""Layers inserted into a network: where they are put, deployed and loaded again."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from understudy import models
from understudy.layers.kd_layer import KDLayer
from understudy.models.network import Network

PUBLISHED = {
    "wrn_16_2": ("stages.2.0", "act", 128, 128, 8),
    "resnet20": ("stages.2.0", "stages", 64, 64, 8),
    "resnet8x4": ("stages.2", "stages", 256, 256, 8),
    "shufflenetv1": ("stages.2.0", "stages", 960, 960, 4),
    "shufflenetv2": ("stages.2.0", "head", 464, 1024, 4),
    "mobilenetv2": ("groups.5.0", "head", 80, 1280, 2),
    "resnet50": ("stages.3.0", "stages", 2048, 2048, 4),
}
"""Insertion points and shapes in the paper's students and one of its teachers."""

FOREIGN = {
    "torchvision:resnet18": ("layer4.0", "layer4"),
    "torchvision:mobilenet_v2": ("features.14", "features"),
    "timm:convnext_atto": ("stages.3.blocks.0", "stages"),
    "timm:efficientnet_b0": ("blocks.5.0", "bn2"),
    "timm:regnetx_002": ("s4.b1", "s4"),
}

TINY_SWIN = {"embed_dim": 8, "depths": (1, 1, 2), "num_heads": (1, 1, 2), "window_size": 4}


def images(side: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def extended(name: str = "resnet20", *, words: int = 5, averaged: bool | None = None) -> Network:
    torch.manual_seed(0)
    network = models.find(name, num_classes=4)
    for feature in ("last_stage/first", "penultimate/map"):
        mean = network.depends_only_on_mean(feature) if averaged is None else averaged
        layer = KDLayer(network.shapes[feature][0], words, alpha=0.5, averaged=mean)
        network.insert(feature, layer, {f"scores of {feature}": "score"})
    return network


def warm(network: Network) -> Network:
    """Give norms running statistics that are not the initial ones."""
    network.train().features(images(count=8))
    return network.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_insertion_points_are_found(name: str) -> None:
    network = models.find(name)
    first, last, before, width, side = PUBLISHED[name]
    assert network.taps["last_stage/first"] == first
    assert network.taps["penultimate/map"] == last
    assert network.shapes["last_stage/first"] == (before, side, side)
    assert network.shapes["penultimate/map"] == (width, side, side)
    pooled = network.eval().features(images())["penultimate/map"].mean((2, 3))
    torch.testing.assert_close(pooled, network.features(images())["penultimate"])


@pytest.mark.parametrize("name", FOREIGN)
def test_insertion_points_of_other_libraries_are_found(name: str) -> None:
    network = models.find(name, num_classes=4, size=64)
    found = tuple(network.taps[key] for key in ("last_stage/first", "penultimate/map"))
    assert found == FOREIGN[name]
    assert network.depends_only_on_mean("penultimate/map")
    assert not network.depends_only_on_mean("last_stage/first")


@pytest.mark.parametrize(
    ("pool", "depth", "first", "last"),
    [("token", 4, 1, 2), ("avg", 4, 2, 3), ("avg", 8, 6, 7), ("avg", 2, 0, 1)],
)
def test_layers_work_on_the_patches_of_a_transformer(
    pool: str, depth: int, first: int, last: int
) -> None:
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_heads": 2, "reg_tokens": 2}
    small |= {"depth": depth, "global_pool": pool}

    def built() -> Network:
        return models.find("timm:vit_tiny_patch16_224", num_classes=4, size=32, options=small)

    network = built()
    assert network.taps["last_stage/first"] == f"blocks.{first}"
    assert network.taps["penultimate/map"] == f"blocks.{last}"
    assert not network.depends_only_on_mean("penultimate/map")
    before = network.eval().features(images())
    for feature in ("last_stage/first", "penultimate/map"):
        layer = KDLayer(12, 5, alpha=0.5, averaged=False)
        network.insert(feature, layer, {f"scores of {feature}": "score"})
    network.eval()
    after = network.features(images())
    assert after["scores of penultimate/map"].shape == (2, 5, 4, 4)
    # The layer changes the patches, and leaves class token and registers to the next block.
    change = (after["last_stage/first"] - before["last_stage/first"]).abs().amax((0, 2))
    assert not change[:3].any()
    assert (change[3:] > 0).all()
    assert not torch.allclose(after["logits"], before["logits"])
    other = built()
    other.insert_saved_layers(network.module.state_dict())
    other.module.load_state_dict(network.module.state_dict())
    assert torch.equal(other.eval()(images()), after["logits"])
    assert torch.equal(network.plain()(network._normalise(images())), after["logits"])


def test_later_layers_read_the_inserted_one_and_its_scores_are_features() -> None:
    network = extended("wrn_16_1").eval()
    found = network.features(images())
    assert found["scores of penultimate/map"].shape == (2, 5, 8, 8)
    torch.testing.assert_close(found["penultimate/map"].mean((2, 3)), found["penultimate"])
    assert list(found) == list(network.shapes)
    first = network.module.get_submodule(network.taps["last_stage/first"])
    before = network(images())
    first.layer.alpha.zero_()
    assert not torch.allclose(before, network(images()))


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_1", "mobilenetv2"])
def test_the_mean_before_the_last_convolution_is_exact(name: str) -> None:
    each = warm(extended(name, averaged=False).double())
    mean = deepcopy(each)
    mean.module.get_submodule(mean.taps["penultimate/map"]).layer._averages = True
    results = []
    for network in (each, mean):
        logits = network(images().double())
        logits.square().sum().backward()
        results.append((logits, [p.grad for p in network.parameters()]))
    (logits, gradients), (fast, others) = results
    torch.testing.assert_close(fast, logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(others, gradients, rtol=1e-8, atol=1e-10)


def test_the_output_may_depend_on_more_than_the_mean_of_an_earlier_map() -> None:
    bent = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 6, 3, 2)),
        nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    network = Network(bent, taps={"before": "1"})
    assert not network.depends_only_on_mean("before")
    assert network.depends_only_on_mean("penultimate/map")


def test_maps_with_channels_last_pass_the_layer_channels_first() -> None:
    network = models.find(
        "timm:swin_tiny_patch4_window7_224", num_classes=4, size=64,
        options={"img_size": 64, **TINY_SWIN},
    )  # fmt: skip
    width, *_ = network.shapes["penultimate/map"]
    layer = KDLayer(width, 5, alpha=1.0, averaged=network.depends_only_on_mean("penultimate/map"))
    network.insert("penultimate/map", layer, {"scores": "score"})
    side = network.shapes["penultimate/map"][1]
    assert network.features(images(64))["scores"].shape == (2, 5, side, side)


def test_the_plain_network_keeps_the_layers_and_exports_as_one_graph() -> None:
    network = warm(extended())
    plain = network.plain()
    normalised = network._normalise(images())
    exported = torch.export.export(plain, (normalised,)).module()
    torch.testing.assert_close(exported(normalised), network(images()))


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_1", "shufflenetv2"])
def test_saved_layers_are_inserted_before_weights_are_loaded(name: str, tmp_path: Path) -> None:
    network = warm(extended(name))
    save_file(network.plain().state_dict(), tmp_path / "student.safetensors")
    again = models.find(name, num_classes=4, weights=str(tmp_path / "student.safetensors"))
    assert torch.equal(again.eval()(images()), network(images()))
    assert again.plain().state_dict().keys() == network.plain().state_dict().keys()


def test_a_copy_has_its_own_layers_and_taps() -> None:
    network = extended().eval()
    copy = deepcopy(network)
    copy.module.get_submodule(copy.taps["penultimate/map"]).layer.alpha.fill_(9)
    assert not torch.allclose(copy(images()), network(images()))
    assert copy.features(images()).keys() == network.features(images()).keys()
