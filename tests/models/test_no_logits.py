"""Outputs that are no logits are refused with the cause, and with the classifier to name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.distillation.small_networks import images, network
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, ShapeError
from understudy.models.network import Network
from understudy.models.preprocessing import as_given

IMAGES, LABELS = images(4, 3, 32, 32), torch.arange(4)


class Ends(nn.Module):
    """A network whose logits go through a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.function = network(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x))


@pytest.mark.parametrize(
    ("build", "path", "cause"),
    [
        (lambda: Ends(lambda x: 30 * torch.tanh(x / 30)), "body.7", "An activation follows"),
        (lambda: nn.Sequential(*network(), nn.ReLU6()), "7", "An activation follows"),
    ],
)
def test_the_cause_and_the_classifier_are_named(
    build: Callable[[], nn.Module], path: str, cause: str
) -> None:
    teacher = build()
    with pytest.raises(ShapeError, match=rf"no feature 'logits'.* {cause} .*classifier: '{path}'"):
        wire(network(seed=1), teacher, {"kd": 1}, example=IMAGES)
    with pytest.raises(ShapeError, match=rf"set selective to false. {cause}"):
        wire(network(seed=1), teacher, {"lshfm": 1}, example=IMAGES)
    distiller = wire(
        network(seed=1), teacher, {"kd": 1}, example=IMAGES, classifier={"teacher": path}
    )
    assert distiller.teacher is not None
    expected = teacher.eval()(IMAGES)
    assert torch.equal(distiller.teacher.network.eval()(IMAGES), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("softmax", lambda x: 100 * x.softmax(1)),
        ("softmax", lambda x: x.softmax(1) / 2 + 1),
        ("sigmoid", lambda x: 5 * x.sigmoid()),
        ("log_softmax", lambda x: -x.log_softmax(1)),
        ("log_sigmoid", nn.functional.logsigmoid),
        ("softmax", lambda x: 5 * (x.softmax(1) + x.flip(1).softmax(1)) / 2),
        ("softmax", lambda x: 7 * torch.stack([x.softmax(1), (2 * x).softmax(1)]).mean(0)),
        ("softmax", lambda x: 100 * x.exp() / x.exp().sum(1, keepdim=True)),
        ("softmax", lambda x: 100 * nn.functional.normalize(x.exp(), p=1)),
        ("softmax", lambda x: x.softmax(1).clamp(1e-7, 1) * 9),
        ("log_softmax", lambda x: 3 * ((x.softmax(1) + x.flip(1).softmax(1)) / 2).log()),
        ("log_softmax", lambda x: ((x.softmax(1) + x.flip(1).softmax(1)) / 2).log()),
        ("sigmoid", lambda x: 5 * torch.stack([x.sigmoid(), (2 * x).sigmoid()]).mean(0)),
        ("log_sigmoid", lambda x: 2 * x.sigmoid().log()),
    ],
)
def test_scaled_probabilities_are_no_logits(
    name: str, function: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(NetworkError, match=f"ends in a {name}: it returns probabilities"):
        Network(Ends(function), input=as_given(3), example_size=(32, 32))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.abs() + 1,
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: 0 * x + 1,
        lambda x: x.flip(1).softmax(1) * x,
        lambda x: x * x.mean(1, keepdim=True).sigmoid(),
        lambda x: x + x.softmax(1),
    ],
)
def test_other_functions_of_logits_are_not_taken_for_probabilities(
    function: Callable[[Tensor], Tensor],
) -> None:
    taps = {"penultimate": "body.7:input"}
    network = Network(Ends(function), input=as_given(3), example_size=(32, 32), taps=taps)
    assert network.num_classes == 4


def test_scaled_logits_are_logits() -> None:
    wrapped = Network(Ends(lambda x: 5 * x + 1), input=as_given(3), example_size=(32, 32)).eval()
    assert wrapped.num_classes == 4
    assert torch.allclose(wrapped(IMAGES), 5 * wrapped.module.body(IMAGES) + 1)  # type: ignore[union-attr,operator]


def test_logits_are_not_the_penultimate_feature() -> None:
    def build(path: str, classifier: str | None = None) -> Network:
        net = nn.Sequential(*network(), nn.Identity())
        taps = {"penultimate": path}
        return Network(
            net, input=as_given(3), example_size=(32, 32), taps=taps, classifier=classifier
        )

    for path in ("7", "8", "8:input"):
        with pytest.raises(NetworkError, match="names the logits themselves"):
            build(path)
    assert build("7:input").shapes["penultimate"] == (16,)
    assert build("7", classifier="").shapes["penultimate"] == (4,)


@pytest.mark.parametrize(("takes", "words"), [(1, "1 channel,"), (2, "2 channels,")])
def test_channels_are_counted_in_sentences(takes: int, words: str) -> None:
    with pytest.raises(NetworkError, match=rf"channels instead\. It takes {words} not 3: "):
        Network(network(takes), input=as_given(3), example_size=(32, 32))


@pytest.mark.parametrize("classes", [4, 5])
def test_an_output_as_wide_as_the_classes_is_not_silently_a_feature(classes: int) -> None:
    student, teacher = network(classes=classes, seed=1), Ends(lambda x: 30 * torch.tanh(x / 30))
    if classes != 4:
        assert wire(student, teacher, {"pefd": 1}, example=IMAGES)(IMAGES, LABELS)["pefd"] > 0
        return
    with pytest.raises(
        NetworkError, match=r"returns 4 values.*An activation follows.*classifier: ''"
    ):
        wire(student, teacher, {"pefd": 1}, example=IMAGES)
    feature = {"classifier": {"teacher": ""}}
    assert (
        wire(student, teacher, {"pefd": 1}, example=IMAGES, **feature)(IMAGES, LABELS)["pefd"] > 0
    )


def test_logits_of_one_position_are_rows() -> None:
    """As of a 1×1 convolution behind the pooling."""
    teacher = nn.Sequential(*network()[:-2], nn.Conv2d(16, 4, 1))
    wrapped = Network(teacher, input=as_given(3), example_size=(32, 32)).eval()
    assert wrapped.shapes["logits"] == (4,)
    assert torch.equal(wrapped(IMAGES), teacher(IMAGES).flatten(1))
    for student, taught in ((teacher, network(seed=1)), (network(seed=1), teacher)):
        losses = wire(student, taught, {"kd": 1, "pefd": 1}, example=IMAGES)(IMAGES, LABELS)
        assert all(loss.isfinite() for loss in losses.values())


def test_class_maps_weighted_by_attention_are_not_of_the_mean_map() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.scores, self.weights = (
                network()[:-3],
                nn.Conv2d(16, 4, 1),
                nn.Conv2d(16, 1, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return (
                self.scores(x) * self.weights(x).flatten(2).softmax(2).view(-1, 1, *x.shape[2:])
            ).sum((2, 3))

    with pytest.raises(NetworkError, match="returns 4 values, as many as the student has classes"):
        wire(network(seed=1), Attention(), {"pefd": 1}, example=IMAGES)


@pytest.mark.parametrize("random", [True, False])
def test_a_network_that_draws_random_numbers_in_evaluation_is_warned_of(
    random: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Dropping(Ends):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(nn.functional.dropout(x, 0.5, training=random))

    Network(Dropping(torch.abs), input=as_given(3), example_size=(32, 32))
    words = "gives other outputs for the same images"
    assert [words in record.getMessage() for record in caplog.records] == [True] * random
