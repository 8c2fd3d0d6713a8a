"""In a loop of one's own, networks get the images as they are, or as an input contract says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.distillation.small_networks import images, network, pair
from understudy.distillation.wire import wire
from understudy.errors import DataError, NetworkError, ShapeError
from understudy.functional import kl_divergence
from understudy.models.network import Network
from understudy.models.preprocessing import Input


def seen_by(module: nn.Module) -> list[Tensor]:
    """Keep the images that a module gets from now on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


@pytest.mark.parametrize("example", [(2, 3, 32, 32), (2, 3, 24, 40), (2, 3, 40, 24)])
@pytest.mark.parametrize("given", [(2, 3, 32, 32), (3, 3, 24, 40), (2, 3, 17, 33)])
def test_images_of_any_size_go_to_both_networks_unchanged(
    example: tuple[int, ...], given: tuple[int, ...]
) -> None:
    student, teacher = pair()
    distiller = wire(student, teacher, {"kd": 1}, example=images(*example))
    both = seen_by(student), seen_by(teacher)
    batch = images(*given)
    distiller(batch, torch.zeros(given[0], dtype=torch.long))
    assert all(torch.equal(seen[-1], batch) for seen in both)


def test_the_student_deploys_as_it_was_trained() -> None:
    student, teacher = pair()
    distiller = wire(student, teacher, {"kd": 1}, example=images(2, 3, 24, 40)).eval()
    batch = images(2, 3, 24, 40)
    assert torch.equal(distiller.student(batch), distiller.student.plain()(batch))


class Fixed(nn.Module):
    """A network that takes images of one size alone, which is no square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, 4)
        self.fc = nn.Linear(2 * 2 * 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).flatten(1))
        return y


def test_a_network_of_one_oblong_size_is_read_at_that_size() -> None:
    distiller = wire(network(), Fixed(), {"kd": 1}, example=images(2, 3, 8, 20))
    assert distiller.teacher is not None
    assert distiller.teacher.network.shapes["penultimate"] == (20,)
    assert distiller(images(2, 3, 8, 20), torch.tensor([0, 1]))["kd"].isfinite()


class ChannelsLast(nn.Module):
    """A network whose last map has its channels last and is averaged by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.act(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2))
        return y


def test_a_channels_last_feature_keeps_its_dimension_in_oblong_images() -> None:
    module = ChannelsLast()
    wrapped = Network(module, taps={"penultimate": "act"}, example_size=(16, 16))
    batch = torch.rand(2, 3, 8, 20)
    expected = module.conv(batch).relu().mean((2, 3))
    assert torch.allclose(wrapped.features(batch)["penultimate"], expected)


def test_uint8_is_refused_where_no_contract_says_its_range() -> None:
    student, teacher = pair()
    distiller = wire(student, teacher, {"kd": 1}, example=torch.rand(2, 3, 32, 32))
    with pytest.raises(DataError, match=r"uint8.* `images.float\(\) / 255`"):
        distiller(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]))


def test_with_a_contract_uint8_is_scaled_and_other_integers_are_refused() -> None:
    student, teacher = pair()
    contract = Input(size=24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    distiller = wire(
        student, teacher, {"kd": 1}, example=torch.rand(2, 3, 32, 32),
        student_input=contract, teacher_input=contract,
    )  # fmt: skip
    whole = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    assert torch.equal(distiller(whole, labels)["kd"], distiller(whole / 255, labels)["kd"])
    with pytest.raises(DataError, match="int64"):
        distiller(whole.long(), labels)


def test_each_network_may_have_a_contract_of_its_own() -> None:
    student, teacher = pair()
    contract = Input(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    distiller = wire(
        student, teacher, {"kd": 1}, example=torch.rand(2, 3, 24, 40), teacher_input=contract
    )
    ours, theirs = seen_by(student), seen_by(teacher)
    batch = torch.rand(2, 3, 24, 40)
    distiller(batch)
    assert torch.equal(ours[-1], batch)
    assert torch.allclose(theirs[-1], (batch - 0.5) / 0.25)
    with pytest.raises(NetworkError, match="'student_input' is for a plain module"):
        wire(Network(student), teacher, {"kd": 1}, example=batch, student_input=contract)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_networks_of_other_channels_take_the_channels_of_the_example(channels: int) -> None:
    student, teacher = pair(channels)
    batch = images(3, channels, 24, 30)
    distiller = wire(student, teacher, {"kd": 1, "fitnet": {"feature": "stage1"}}, example=batch)
    losses = distiller(batch, torch.tensor([0, 1, 2]))
    teacher_logits, student_logits = teacher.eval()(batch), student(batch)
    expected = 16 * kl_divergence(student_logits, teacher_logits, 4.0).mean()
    assert torch.allclose(losses["kd"], expected)


def test_wrong_channels_are_named_with_the_key_to_change() -> None:
    with pytest.raises(NetworkError, match=r"takes 1 channel, not 3.* `mean` and `std` of 1"):
        Network(network(1), input=Input(size=32))
    with pytest.raises(NetworkError, match="'mean' has 1 values and 'std' has 3"):
        Input(mean=(0.5,))


def test_a_grey_network_of_a_recipe_sees_colour_images_in_grey() -> None:
    module = network(1).eval()
    wrapped = Network(module, input=Input(size=16, mean=(0.5,), std=(0.5,)))
    colour = torch.rand(2, 3, 16, 16)
    grey = (colour * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(wrapped(colour), module((grey - 0.5) / 0.5), atol=1e-6)
    same = torch.rand(2, 1, 16, 16)
    assert torch.allclose(wrapped(same.expand(-1, 3, -1, -1)), wrapped(same), atol=1e-6)
    with pytest.raises(DataError, match=r"4 channels, and the network's 'mean' has 1"):
        wrapped(torch.rand(2, 4, 16, 16))


@pytest.mark.parametrize("example", [None, torch.rand(3, 8, 8), "images"])
def test_an_example_must_be_images(example: Tensor | None) -> None:
    with pytest.raises(ShapeError, match="`example`"):
        wire(*pair(), {"kd": 1}, example=example)


def test_the_text_of_a_contract_stays_as_banks_have_stored_it(tmp_path: Path) -> None:
    assert str(Input(size=32)) == (
        "Input(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation='bicubic')"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_teacher_of_another_precision_gets_images_of_its_own(dtype: torch.dtype) -> None:
    student, teacher = pair()
    teacher = teacher.to(dtype)
    batch = images(4, 3, 24, 24)
    distiller = wire(student, teacher, {"kd": 1}, example=batch)
    losses = distiller(batch, torch.arange(4))
    expected = 16 * kl_divergence(student(batch), teacher(batch.to(dtype)).float(), 4.0).mean()
    assert losses["kd"].dtype in (torch.float32, torch.float64)
    assert torch.allclose(losses["kd"].float(), expected, atol=1e-5)
    distiller.total(losses).backward()
