"""Contract of every network of the papers; those of other libraries: `test_every_foreign_model`."""

from copy import deepcopy

import pytest
import torch
import torch.fx

from tests.support.network_images import images, stages
from understudy import models
from understudy.errors import NameNotFound, NetworkError
from understudy.models import Network

pytestmark = pytest.mark.usefixtures("quick_weights")

PARAMETERS = {
    "mobilenetv2": 812_836,
    "resnet8x4": 1_233_540,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet32x4": 7_433_860,
    "resnet50": 23_705_252,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
}
"""Published number of parameters, with 100 classes."""

_RESNET = [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8), (64,)]
_X4 = [(32, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (256,)]
_WRN_2 = [(16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8), (128,)]
_VGG = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4), (512,)]
SHAPES = {
    "resnet20": _RESNET,
    "resnet56": _RESNET,
    "resnet110": _RESNET,
    "resnet8x4": _X4,
    "resnet32x4": _X4,
    "wrn_16_2": _WRN_2,
    "wrn_40_2": _WRN_2,
    "wrn_40_1": _RESNET,
    "vgg8": _VGG,
    "vgg13": _VGG,
    "resnet50": [(64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4), (2048,)],
    "mobilenetv2": [(16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2), (1280,)],
    "shufflenetv1": [(24, 32, 32), (240, 16, 16), (480, 8, 8), (960, 4, 4), (960,)],
    "shufflenetv2": [(24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4), (1024,)],
}
"""Published shapes of stem, stages and penultimate for 32×32 images."""

CHEAP = ["mobilenetv2", "resnet8", "resnet50", "shufflenetv1", "shufflenetv2", "vgg8", "wrn_16_1"]
"""One network of every family, for tests whose result does not depend on depth or width."""


@pytest.fixture(scope="module", params=models.names())
def shipped(request: pytest.FixtureRequest, quick_weights: None) -> Network:
    """A network that several tests look at; its norms have seen what an earlier one showed."""
    torch.manual_seed(0)
    return models.find(str(request.param), num_classes=7)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_published_parameter_count(name: str, count: int) -> None:
    network = models.find(name, num_classes=100)
    assert sum(p.numel() for p in network.module.parameters()) == count
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("name", "shapes"), SHAPES.items())
def test_published_feature_shapes(name: str, shapes: list[tuple[int, ...]]) -> None:
    network = models.find(name, num_classes=100)
    names = ["stem", *stages(network), "penultimate"]
    assert [network.shapes[key] for key in names] == shapes


def test_features_have_the_stated_names_and_shapes(shipped: Network) -> None:
    network = shipped
    assert next(iter(network.shapes)) == "stem"
    assert list(network.shapes)[-2:] == ["penultimate", "logits"]
    assert stages(network) == [f"stage{i}" for i in range(1, len(stages(network)) + 1)]
    assert network.num_classes == 7
    assert network.shapes.vector("penultimate") == network.classifier_weight.shape[1]
    for training in (True, False):
        with torch.no_grad():
            features = network.train(training).features(images(network))
        assert list(features) == list(network.shapes)
        for key, feature in features.items():
            assert feature.shape == (3, *network.shapes[key])
            assert feature.isfinite().all()


def test_every_parameter_learns(shipped: Network) -> None:
    network = shipped.train()
    # No two images and no two classes alike, so that no gradient vanishes by symmetry.
    target = torch.arange(21.0).view(3, 7).sin()
    (network(images(network)) - target).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_logits_come_from_penultimate(shipped: Network) -> None:
    network = shipped.eval()
    with torch.no_grad():
        features = network.features(images(network))
    logits = features["penultimate"] @ network.classifier_weight.T + network.classifier_bias
    torch.testing.assert_close(features["logits"], logits)


@pytest.mark.parametrize("name", CHEAP)
def test_copies_are_independent(name: str) -> None:
    network = models.find(name, num_classes=7).eval()
    copy = deepcopy(network)
    before = copy.features(images(copy))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    after = copy.features(images(copy))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not network.features(images(network))["logits"].any()


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    # What is not equal in float64 is in no format, so that one network is enough in the other.
    [*((name, torch.float64, 1e-12) for name in CHEAP), ("shufflenetv1", torch.float32, 1e-5)],
)
@pytest.mark.parametrize("dim", [None, 24])
def test_plain_network_gives_the_same_logits(
    name: str, dtype: torch.dtype, tolerance: float, dim: int | None
) -> None:
    network = models.find(name, num_classes=7, mean=(0, 0, 0), std=(1, 1, 1)).to(dtype).eval()
    keys = list(network.module.state_dict())
    if dim is not None:
        network.embed(dim)
        assert network.shapes["penultimate"] == (dim,)
        assert network.classifier_weight.shape == (7, dim)
    plain = network.plain()
    assert list(plain.state_dict()) == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in plain.modules())
    x = images(network)
    torch.testing.assert_close(plain(x), network(x), rtol=tolerance, atol=tolerance)


BRANCHLESS = {"mobilenetv2", "resnet50", "shufflenetv1"}
"""Networks of many layers that do what is done in the others, in one path for all images."""


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", sorted({*CHEAP} - BRANCHLESS))
def test_compiles_as_one_graph(name: str) -> None:
    network = models.find(name, num_classes=7).eval()
    compiled = torch.compile(network.features, fullgraph=True, backend="eager")
    expected, actual = network.features(images(network)), compiled(images(network))
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", sorted(BRANCHLESS))
def test_one_path_leads_through_the_network(name: str) -> None:
    # What torch.fx can trace has no branch at which torch.compile, a hundred times slower, stops.
    network = models.find(name, num_classes=7).eval()
    x = images(network)
    assert torch.equal(torch.fx.symbolic_trace(network.module)(x), network.module(x))


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("size", [28, 64])
def test_other_image_sizes(name: str, size: int) -> None:
    network = models.find(name, num_classes=7, size=size).eval()
    small = torch.rand(2, 3, 16, 16)
    assert network(small).shape == (2, 7)
    assert network.features(small)["stage1"].shape[1:] == network.shapes["stage1"]


def test_vgg_pools_once_more_for_64_pixels() -> None:
    assert models.find("vgg8", size=32).shapes["stage4"] == (512, 4, 4)
    assert models.find("vgg8", size=64).shapes["stage4"] == (512, 4, 4)


def test_width_of_a_residual_network_is_an_option() -> None:
    tiny = models.find("resnet8", num_classes=10, options={"widths": [4, 8, 16, 32]})
    assert tiny.shapes["stem"] == (4, 32, 32)
    assert tiny.shapes["penultimate"] == (32,)


@pytest.mark.parametrize("name", CHEAP)
def test_preact_is_before_the_last_activation(name: str) -> None:
    network = models.find(name).eval()
    features = network.features(images(network))
    for stage in stages(network):
        preact = features[f"{stage}/preact"]
        assert (preact < 0).any()
        if name == "mobilenetv2":  # which has none there
            assert torch.equal(preact, features[stage])
        elif not name.startswith("wrn"):
            assert torch.equal(preact.relu(), features[stage])


def test_preact_of_a_wide_residual_network_is_what_the_next_activation_reads() -> None:
    network = models.find("wrn_16_2").eval()
    module, features = network.module, network.features(images(network))
    for stage, norm in enumerate((module.stages[1][0].bn1, module.stages[2][0].bn1, module.bn), 1):
        assert torch.equal(features[f"stage{stage}/preact"], norm(features[f"stage{stage}"]))


def test_left_half_of_a_shufflenet_needs_no_activation() -> None:
    network = models.find("shufflenetv2").eval()
    preact = network.features(images(network))["stage1/preact"]
    left = preact[:, 0::2]  # the shuffle has interleaved the halves
    assert (left >= 0).all()
    assert (preact[:, 1::2] < 0).any()


def test_stages_of_a_wide_residual_network_are_raw_sums() -> None:
    network = models.find("wrn_16_2").eval()
    features = network.features(images(network))
    assert (features["stage3"] < 0).any()
    pooled = network.module.act(network.module.bn(features["stage3"])).mean((2, 3))
    torch.testing.assert_close(features["penultimate"], pooled)


@pytest.mark.parametrize(
    ("name", "deviation", "zero_bias"),
    [
        ("resnet8x4", None, False),
        ("wrn_16_2", None, True),
        ("vgg8", 0.01, True),
        ("mobilenetv2", 0.01, True),
        ("shufflenetv1", None, False),
    ],
)
def test_new_layers_are_initialised_as_published(
    name: str, deviation: float | None, zero_bias: bool
) -> None:
    torch.manual_seed(0)
    network = models.find(name)
    dim = network.shapes.vector("penultimate")
    # PyTorch's own linear layers are uniform in ±1/√dim: their deviation is 1/√(3 dim).
    expected = {width: deviation or (3 * width) ** -0.5 for width in (dim, 64)}
    assert network.classifier_weight.std().item() == pytest.approx(expected[dim], rel=0.05)
    network.embed(64)
    embedding = network.module.fc.embedding
    assert embedding.weight.std().item() == pytest.approx(expected[dim], rel=0.05)
    assert network.classifier_weight.std().item() == pytest.approx(expected[64], rel=0.05)
    assert (not embedding.bias.any()) == (not network.classifier_bias.any()) == zero_bias


def test_convolutions_are_he_normal() -> None:
    convolution = models.find("resnet8x4").module.stages[2][0].conv2
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(NameNotFound, match="did you mean 'resnet8x4'"):
        models.find("resnet8x")
    with pytest.raises(NetworkError, match="did you mean 'resnet18'"):
        models.find("torchvision:resnet118")
    with pytest.raises(NetworkError, match="did you mean 'convnext_atto'"):
        models.find("timm:convnext_ato")


def test_unknown_option_is_named() -> None:
    with pytest.raises(NetworkError, match="width"):
        models.find("vgg8", options={"widths": [1]})
