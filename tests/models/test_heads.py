"""Heads that are not one plain linear layer: the vector that the logits are computed of."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import understudy
from understudy.errors import NetworkError
from understudy.models import Input, Network

DIM, CLASSES = 16, 5
SMALL = Input(size=16)
Forward = Callable[[Any, Tensor], Any]


def body() -> nn.Sequential:
    """Return a convolutional body that ends in a vector of DIM values."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, DIM, 3, 2, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Net(nn.Module):
    """A body, modules by name, and how the output is computed of the vector and the images."""

    def __init__(self, head: Forward, **modules: Any) -> None:
        super().__init__()
        self.body = body()
        self.head_of = head
        for name, value in modules.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.head_of(self, self.body(x))


def linear(dim: int = DIM, classes: int = CLASSES, **options: Any) -> nn.Linear:
    return nn.Linear(dim, classes, **options)


def weight(classes: int = CLASSES, dim: int = DIM) -> nn.Parameter:
    return nn.Parameter(torch.randn(classes, dim))


def weight_normed(**options: Any) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(linear(**options))


class Cosine(nn.Module):
    """Classifier of cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = weight(), nn.Parameter(torch.tensor(7.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


class LoRA(nn.Module):
    """A linear layer with a low-rank addition."""

    def __init__(self, *, trained: bool) -> None:
        super().__init__()
        self.base = linear()
        self.a, self.b = linear(classes=4, bias=False), linear(dim=4, bias=False)
        if not trained:
            nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * self.b(self.a(x))


class Experts(nn.Module):
    """A mixture of linear experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = linear(classes=2)
        self.experts = nn.ModuleList([linear(), linear()])

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(1)
        return sum(shares[:, i : i + 1] * e(x) for i, e in enumerate(self.experts))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Net(lambda n, x: n.fc(x), fc=linear()),
    "without bias": lambda: Net(lambda n, x: n.fc(x), fc=linear(bias=False)),
    "functional": lambda: Net(lambda n, x: F.linear(x, n.w), w=weight()),
    "matrix product": lambda: Net(lambda n, x: x @ n.w.T + 1, w=weight()),
    "einsum": lambda: Net(lambda n, x: torch.einsum("bd,cd->bc", x, n.w), w=weight()),
    "as many classes as dimensions": lambda: Net(lambda n, x: F.linear(x, n.w), w=weight(DIM)),
    "cosine": lambda: Net(lambda n, x: n.fc(x), fc=Cosine()),
    "weight norm": lambda: Net(lambda n, x: n.fc(x), fc=weight_normed()),
    "weight norm without bias": lambda: Net(lambda n, x: n.fc(x), fc=weight_normed(bias=False)),
    "old weight norm": lambda: Net(lambda n, x: n.fc(x), fc=nn.utils.weight_norm(linear())),
    "spectral norm": lambda: Net(
        lambda n, x: n.fc(x), fc=nn.utils.parametrizations.spectral_norm(linear())
    ),
    "batch norm last": lambda: Net(
        lambda n, x: n.norm(n.fc(x)), fc=linear(), norm=nn.BatchNorm1d(CLASSES)
    ),
    "learnt scale of one": lambda: Net(
        lambda n, x: n.fc(x) * n.s, fc=linear(), s=nn.Parameter(torch.ones(()))
    ),
    "prototypes": lambda: Net(lambda n, x: -torch.cdist(x, n.w), w=weight()),
    "prototypes by differences": lambda: Net(
        lambda n, x: -(x[:, None] - n.w[None]).square().sum(-1), w=weight()
    ),
    "low rank, trained": lambda: Net(lambda n, x: n.fc(x), fc=LoRA(trained=True)),
    "low rank, new": lambda: Net(lambda n, x: n.fc(x), fc=LoRA(trained=False)),
    "a second task last": lambda: Net(
        lambda n, x: (n.fc(x), n.other(x))[0], fc=linear(), other=linear(classes=3)
    ),
    "a second task of as many classes last": lambda: Net(
        lambda n, x: (n.fc(x), n.other(x))[0], fc=linear(), other=linear()
    ),
    "a second task before": lambda: Net(
        lambda n, x: (n.other(x), n.fc(x))[1], fc=linear(), other=linear()
    ),
    "under another key": lambda: Net(lambda n, x: {"scores": n.fc(x)}, fc=linear()),
    "with maps": lambda: Net(lambda n, x: ([x[:, :, None]], n.fc(x)), fc=linear()),
    "two averaged linear layers": lambda: Net(
        lambda n, x: (n.one(x) + n.two(x)) / 2, one=linear(), two=linear()
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_penultimate_is_what_the_logits_are_computed_of(head: str) -> None:
    torch.manual_seed(0)
    module = HEADS[head]().eval()
    network = Network(module, input=SMALL).eval()
    x = torch.rand(3, 3, 16, 16)
    features, returned = network.features(x), module(x)
    logits = returned
    if isinstance(returned, dict):
        logits = returned["scores"]
    elif isinstance(returned, tuple):
        logits = returned[1]
    torch.testing.assert_close(features["penultimate"], module.body(x))
    torch.testing.assert_close(features["logits"], logits)
    assert network.num_classes == logits.shape[1]
    if network.classifier:
        again = F.linear(
            features["penultimate"], network.classifier_weight, network.classifier_bias
        )
        torch.testing.assert_close(again, logits)
    else:
        assert network.classifier_weight is None
    plain, fresh = network.plain(), HEADS[head]().eval()
    fresh.load_state_dict(plain.state_dict())
    torch.testing.assert_close(network.features(x)["logits"], features["logits"])


LINEAR = {
    *("plain", "without bias", "weight norm", "weight norm without bias", "old weight norm"),
    *("a second task last", "a second task of as many classes last", "a second task before"),
    *("spectral norm", "under another key", "with maps"),
}


def test_the_heads_with_one_linear_layer_keep_its_weight() -> None:
    assert {h for h, make in HEADS.items() if Network(make(), input=SMALL).classifier} == LINEAR


def test_similarity_to_texts_is_computed_of_the_image_embedding() -> None:
    def similarity(net: Any, x: Tensor) -> Tensor:
        image, texts = F.normalize(net.project(x)), F.normalize(net.texts_of(net.tokens))
        return net.scale.exp() * image @ texts.T

    for width in (8, CLASSES):
        module = Net(
            similarity, project=nn.Linear(DIM, width, bias=False), texts_of=nn.Linear(6, width),
            tokens=nn.Parameter(torch.randn(CLASSES, 6)), scale=nn.Parameter(torch.tensor(2.0)),
        )  # fmt: skip
        network = Network(module, input=SMALL).eval()
        x = torch.rand(2, 3, 16, 16)
        features = network.features(x)
        torch.testing.assert_close(features["penultimate"], module.project(module.body(x)))
        assert features["logits"].shape == (2, CLASSES)


def test_a_functional_head_of_the_mean_of_a_map_is_tapped_at_the_map() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.w = body()[:5], weight()

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.body(x).mean((2, 3)), self.w)

    module = Mean()
    network, x = Network(module, input=SMALL).eval(), torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network.features(x)["penultimate"], module.body(x).mean((2, 3)))
    assert network.num_classes == CLASSES


class Ensemble(nn.Module):
    """The mean of members."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return sum(member(x) for member in self.members) / len(self.members)


def zeroed(module: nn.Module) -> nn.Module:
    """Set every classifier to zero, as some libraries initialise it."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.zeros_(m.weight)
            nn.init.zeros_(m.bias)
    return module


def plain() -> nn.Module:
    return HEADS["plain"]()


UNCERTAIN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ensemble": (lambda: Ensemble(plain(), plain()), "'members.0.fc', 'members.1.fc'"),
    "ensemble of zeros": (lambda: zeroed(Ensemble(plain(), plain())), "penultimate"),
    "experts": (lambda: Net(lambda n, x: n.fc(x), fc=Experts()), "penultimate"),
    "main and auxiliary": (
        lambda: Net(lambda n, x: (n.fc(x), n.aux(x)), fc=linear(), aux=linear()),
        "several tensors",
    ),
    "three exits": (
        lambda: Net(lambda n, x: [e(x) for e in n.exits], exits=nn.ModuleList([linear()] * 3)),
        "several tensors",
    ),
    "features and logits": (
        lambda: Net(lambda n, x: OrderedDict(embedding=x, scores=n.fc(x)), fc=linear()),
        "embedding of shape.*scores of shape.*classifier",
    ),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_is_uncertain_is_refused_with_the_choice(case: str) -> None:
    make, words = UNCERTAIN[case]
    with pytest.raises(NetworkError, match=words):
        Network(make(), input=SMALL)


def test_the_choice_can_be_made() -> None:
    x = torch.rand(2, 3, 16, 16)
    ensemble = Ensemble(plain(), plain())
    network = Network(ensemble, input=SMALL, taps={"penultimate": "members.1.body"}).eval()
    torch.testing.assert_close(network.features(x)["penultimate"], ensemble.members[1].body(x))
    torch.testing.assert_close(network.features(x)["logits"], ensemble(x))
    two = UNCERTAIN["main and auxiliary"][0]().eval()
    for path, position in (("fc", 0), ("aux", 1)):
        network = Network(two, input=SMALL, classifier=path).eval()
        torch.testing.assert_close(network(x), two(x)[position])
    experts = UNCERTAIN["experts"][0]()
    network = Network(experts, input=SMALL, classifier="fc").eval()
    torch.testing.assert_close(network.features(x)["penultimate"], experts.body(x))
    assert network.num_classes == CLASSES


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_probabilities_are_refused(last: nn.Module) -> None:
    with pytest.raises(NetworkError, match=r"returns probabilities.*'1' by nn.Identity\(\)"):
        Network(nn.Sequential(plain(), last), input=SMALL)


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_functional_probabilities_are_refused(function: Any) -> None:
    with pytest.raises(NetworkError, match="softmax: it returns probabilities"):
        Network(Net(lambda n, x: function(n.fc(x), 1), fc=linear()), input=SMALL)


def test_a_network_of_features_has_no_logits() -> None:
    for module in (body(), nn.Sequential(body(), nn.Linear(DIM, 8), nn.Tanh())):
        network, x = Network(module, input=SMALL).eval(), torch.rand(2, 3, 16, 16)
        assert network.num_classes is None
        torch.testing.assert_close(network.features(x)["penultimate"], module(x))


@pytest.mark.parametrize("head", ["weight norm", "old weight norm", "cosine", "low rank, trained"])
def test_an_embedding_is_refused_where_it_could_not_be_folded(head: str) -> None:
    network = Network(HEADS[head](), input=SMALL)
    with pytest.raises(NetworkError, match="pefd or nd"):
        network.embed(8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
def test_an_embedding_folds_into_a_convolution(pooled: bool, bias: bool) -> None:
    def make() -> nn.Module:
        pool = [nn.AdaptiveAvgPool2d(1)]
        head = [nn.Dropout(0.1), nn.Conv2d(DIM, CLASSES, 1, bias=bias)]
        order = [*pool, *head] if pooled else [*head, *pool]
        return nn.Sequential(body()[:5], *order, nn.Flatten())

    network, x = Network(make(), input=SMALL).eval(), torch.rand(2, 3, 16, 16)
    network.embed(7)
    features = network.features(x)
    assert features["penultimate"].shape == (2, 7)
    again = F.linear(features["penultimate"], network.classifier_weight, network.classifier_bias)
    torch.testing.assert_close(again, features["logits"])
    fresh = make().eval()
    fresh.load_state_dict(network.plain().state_dict())
    torch.testing.assert_close(fresh(x), features["logits"])


def test_an_embedding_of_a_classifier_without_bias_folds_into_its_architecture() -> None:
    network, x = Network(HEADS["without bias"](), input=SMALL).eval(), torch.rand(2, 3, 16, 16)
    network.embed(7)
    fresh = HEADS["without bias"]().eval()
    fresh.load_state_dict(network.plain().state_dict())
    torch.testing.assert_close(fresh(x), network(x))


def test_wire_takes_taps_and_classifier_by_network() -> None:
    x, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    two, ensemble = UNCERTAIN["main and auxiliary"][0](), Ensemble(plain(), plain())
    wired = understudy.wire(
        two, ensemble, {"kd": 1.0, "pefd": 1.0}, example=x,
        taps={"teacher": {"penultimate": "members.0.body"}}, classifier={"student": "fc"},
    )  # fmt: skip
    assert all(loss.isfinite() for loss in wired(x, labels).values())
    with pytest.raises(NetworkError, match="by network"):
        understudy.wire(plain(), plain(), {"kd": 1}, example=x, taps={"penultimate": "body"})  # type: ignore[dict-item]
