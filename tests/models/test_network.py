"""Input contract, dry pass, embedding and deployment of a network."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from understudy import models
from understudy.errors import NetworkError
from understudy.models import Input, Network


def small(**options: object) -> Network:
    return models.find("resnet8", num_classes=5, options={"widths": [4, 4, 8, 8]}, **options)


def test_images_are_resized_and_normalised() -> None:
    contract = Input(size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), input=contract)
    x = torch.rand(2, 3, 8, 8)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(network(x), network.module((x - mean) / 0.5))
    assert network(torch.rand(2, 3, 20, 30)).shape == (2, 2)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_resizing_keeps_the_range(interpolation: str) -> None:
    sharp = torch.zeros(1, 3, 12, 12)
    sharp[..., 6:] = 1
    resized = Input(size=31, interpolation=interpolation).resize(sharp)
    assert resized.shape == (1, 3, 31, 31)
    assert resized.min() == 0
    assert resized.max() == 1
    same = torch.rand(1, 3, 31, 31)
    assert Input(size=31, interpolation=interpolation).resize(same) is same


def test_dry_pass_leaves_no_trace() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    module[1].eval()  # a frozen norm in a network that trains
    before = {key: value.clone() for key, value in module.state_dict().items()}
    random = torch.get_rng_state()
    Network(module, input=Input(size=8))
    assert module.training
    assert not module[1].training
    assert module[2].training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_state_dict_is_the_plain_networks() -> None:
    network = small()
    keys = [key.removeprefix("module.") for key in network.state_dict()]
    assert keys == list(network.module.state_dict())
    assert keys == list(models.find("resnet8", num_classes=5).module.state_dict())


def test_wrong_image_size_is_explained() -> None:
    with pytest.raises(NetworkError, match="State the side it needs with `size`"):
        Network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), input=Input(size=9))


def test_network_that_returns_no_tensor_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "nothing"

    with pytest.raises(NetworkError, match="returns no tensor"):
        Network(Silent(), input=Input(size=8))


def test_only_one_embedding() -> None:
    network = small()
    network.embed(6)
    layer = network.module.fc.embedding
    network.embed(6)
    assert network.module.fc.embedding is layer
    with pytest.raises(NetworkError, match="no embedding yet"):
        network.embed(7)


def test_embedding_folds_exactly() -> None:
    network = small()
    network.embed(16)
    network.double().eval()
    inner, outer = network.module.fc.embedding, network.module.fc.classifier
    folded = network.plain().fc
    torch.testing.assert_close(folded.weight, outer.weight @ inner.weight, rtol=0, atol=1e-15)
    expected = outer.weight @ inner.bias + outer.bias
    torch.testing.assert_close(folded.bias, expected, rtol=0, atol=1e-15)
    assert network.module.fc.embedding is inner


def test_plain_network_is_a_copy() -> None:
    network = small()
    plain = network.plain()
    with torch.no_grad():
        plain.fc.weight.zero_()
    assert network.classifier_weight.any()
    assert network.features(torch.rand(2, 3, 32, 32)).keys() == network.shapes.keys()


def test_classifier_can_be_reset() -> None:
    network = small()
    network.reset_classifier(9)
    assert network.num_classes == 9
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 9)
    squeezed = models.find("torchvision:squeezenet1_1", num_classes=5, size=32)
    squeezed.reset_classifier(4)
    assert squeezed(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(NetworkError, match="embedding"):
        squeezed.embed(8)


def test_trains_under_distributed_data_parallel(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        network = small()
        DistributedDataParallel(network)(torch.rand(4, 3, 32, 32)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    finally:
        dist.destroy_process_group()


def test_unknown_interpolation_is_refused() -> None:
    with pytest.raises(NetworkError, match="did you mean 'bicubic'"):
        Input(interpolation="cubic")


class Doubled(nn.Module):
    """Repeat every channel, at a quarter of the locations."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1)[..., ::2, ::2]


def test_a_new_head_reads_the_mean_of_its_layers_output() -> None:
    network, x = small(), torch.rand(2, 3, 32, 32)
    before = network.eval().features(x)
    network.rehead(Doubled(), nn.Linear(16, 7))
    after = network.features(x)
    projected = Doubled()(before["penultimate/map"])
    torch.testing.assert_close(after["penultimate/map"], projected)
    torch.testing.assert_close(after["penultimate"], projected.mean((2, 3)))
    torch.testing.assert_close(after["stage3"], before["stage3"])
    assert network.num_classes == 7
    assert network.shapes["penultimate"] == (16,)
    assert network.plain().fc.weight.shape == (7, 16)


def test_a_new_head_takes_another_networks_classifier_and_no_other_head_does() -> None:
    network, teacher = small(), small()
    old = network.classifier_weight.clone()
    network.copy_classifier(teacher)
    assert torch.equal(network.classifier_weight, old)
    network.rehead(nn.Identity(), nn.Linear(8, 5))
    network.copy_classifier(teacher)
    assert torch.equal(network.classifier_weight, teacher.classifier_weight)
    assert torch.equal(network.classifier_bias, teacher.classifier_bias)
    assert not network.classifier_weight.requires_grad


def test_a_new_head_is_refused_unless_the_classifier_reads_the_mean() -> None:
    network = small()
    network.embed(6)
    with pytest.raises(NetworkError, match="no layer added yet"):
        network.rehead(nn.Identity(), nn.Linear(6, 5))
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(NetworkError, match="reads the average"):
        Network(pooled, input=Input(size=8)).rehead(nn.Identity(), nn.Linear(4, 2))
