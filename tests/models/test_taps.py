"""Taps on networks that overwrite a tensor in place, call a module twice or return no tensor."""

import weakref
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import NetworkError
from understudy.models import Input, Network

SMALL = Input(size=16)


class Overwriting(nn.Module):
    """Its first map is overwritten by a module, its second by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 8, 3, 2, 1)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.conv1(x))
        x = F.relu(self.conv2(x), inplace=True)
        return self.fc(self.drop(x.mean((2, 3))))


class Repeating(nn.Module):
    """One activation is called twice, one module never, one returns no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.act = nn.ReLU()
        self.unused = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv2(self.act(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class ChannelsLast(nn.Module):
    """Maps are kept as (batch, height, width, channels), as Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Linear(6, 7)
        self.fc = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mix(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_features_are_not_overwritten_in_place() -> None:
    module = Overwriting().eval()
    with torch.no_grad():
        first = module.conv1(images())
        second = module.conv2(first.relu())
        expected = module(images())
    network = Network(module, input=SMALL, taps={"first": "conv1", "second": "conv2"}).eval()
    features = network.features(images())
    assert (first < 0).any()
    torch.testing.assert_close(features["first"], first)
    torch.testing.assert_close(features["second"], second)
    torch.testing.assert_close(features["logits"], expected)
    sum(f.square().sum() for f in features.values()).backward()
    assert module.act1.inplace is False


def test_in_place_activations_that_overwrite_no_tapped_tensor_stay() -> None:
    network = Network(Overwriting(), input=SMALL, taps={"stem": "act1"})
    assert network.module.act1.inplace is True


def test_penultimate_is_read_before_the_dropout() -> None:
    network = Network(Overwriting(), input=SMALL, taps={"second": "conv2"}).train()
    assert network.taps["penultimate"] == "drop:input"
    features = network.features(images(64))
    pooled = features["second"].relu().mean((2, 3))
    torch.testing.assert_close(features["penultimate"], pooled)
    network.embed(6)
    assert network.taps["penultimate"] == "fc.embedding"
    assert isinstance(network.module.drop, nn.Identity)
    assert isinstance(network.plain().drop, nn.Dropout)
    x = images()
    torch.testing.assert_close(network.plain()(x), network.eval()(x))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("act", "called 2 times in a pass"),
        ("unused", "called 0 times in a pass"),
        ("conv3", "did you mean 'conv2'"),
        ("conv1:output", "'module.path:input'"),
    ],
)
def test_bad_taps_are_refused(place: str, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        Network(Repeating(), input=SMALL, taps={"mine": place})


def test_modules_called_twice_are_not_tapped_automatically() -> None:
    network = Network(Repeating(), input=SMALL)
    assert "act" not in network.taps.values()


def test_taps_can_be_overridden() -> None:
    network = Network(Overwriting(), input=SMALL, taps={"stem": "conv1", "mine": "fc:input"})
    assert network.taps["stem"] == "conv1"
    assert network.shapes["mine"] == (8,)
    assert ("mine", "fc:input", (8,)) in network.feature_table()


def test_channels_last_maps_are_delivered_channels_first() -> None:
    network = Network(ChannelsLast(), input=SMALL, taps={"map": "mix"}).eval()
    feature = network.features(images())["map"]
    assert network.shapes["map"] == (7, 4, 4)
    expected = network.module.mix(network.module.patches(images()).permute(0, 2, 3, 1))
    torch.testing.assert_close(feature, expected.permute(0, 3, 1, 2))


def test_no_tensor_is_kept_after_a_pass() -> None:
    network = Network(Overwriting(), input=SMALL)
    network(images())
    assert all(tap._tensor is None for tap in network._taps.values())


def test_a_copy_has_its_own_taps() -> None:
    network = Network(Overwriting(), input=SMALL)
    copy = deepcopy(network)
    assert {id(tap) for tap in network._taps.values()}.isdisjoint(map(id, copy._taps.values()))
    network.module(images())
    assert all(tap._tensor is None for tap in copy._taps.values())


def test_logits_after_a_norm_are_computed_of_the_vector_before_the_layer() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 6), nn.BatchNorm1d(6),
    )  # fmt: skip
    network = Network(module, input=SMALL).eval()
    assert network.classifier == ""
    assert network.shapes["penultimate"] == (4,)
    assert network.num_classes == 6
    assert Network(module, input=SMALL, classifier="5").num_classes == 6
    # The same layers project a feature where there are no classes, which only the user knows.
    projection = Network(module, input=SMALL, classifier="").eval()
    assert projection.num_classes is None
    assert projection.shapes["penultimate"] == (6,)


def test_unknown_classifier_is_refused() -> None:
    with pytest.raises(NetworkError, match="no linear layer"):
        Network(Overwriting(), input=SMALL, classifier="act1")


def test_tracing_keeps_no_feature_alive() -> None:
    alive: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alive.append(sum(storage() is not None for storage in seen))
            y = x * 2
            seen.append(weakref.ref(y))
            return y

    seen: list[weakref.ref[Tensor]] = []
    layers = [Counting() for _ in range(20)]
    Network(
        nn.Sequential(nn.Conv2d(3, 4, 1), *layers, nn.Flatten(), nn.Linear(1024, 2)), input=SMALL
    )
    assert max(alive[:20]) <= 2
