"""Quantised networks teach where their classifier is named, and are refused with the cause else."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization

from tests.distillation.small_networks import images, network
from understudy.config.recipe import Recipe
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, ShapeError
from understudy.experiment.train import train

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns that this is to be replaced
IMAGES, LABELS = images(4, 3, 32, 32), torch.arange(4)
FILE = """
import torch
from tests.models.test_quantised import Static, converted


def factory(num_classes):
    return converted(Static(num_classes))
"""


class Static(nn.Module):
    """A network with the marks of static quantisation."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.body = network(classes=classes)[:-1]
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(self.body(self.quant(x))))


def converted(module: nn.Module) -> nn.Module:
    """The network with quantised layers, calibrated on a few images."""
    module.eval().qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    ready = quantization.prepare(module)
    ready(IMAGES)
    return quantization.convert(ready)


@pytest.mark.parametrize("named", [None, "fc"])
@pytest.mark.parametrize("method", ["kd", "lshfm", "pefd", "nd"])
def test_a_static_teacher_teaches(method: str, named: str | None) -> None:
    teacher = converted(Static())
    choice = {"classifier": {"teacher": named}} if named else {}
    distiller = wire(network(seed=1), teacher, {method: 1}, example=IMAGES, **choice).train()
    distiller.prepare([(IMAGES, LABELS)])
    losses = distiller(IMAGES, LABELS)
    distiller.total(losses).backward()
    assert losses[method].isfinite()
    assert distiller.teacher is not None
    features = distiller.teacher.network.eval().features(IMAGES)
    assert torch.equal(features["logits"], teacher(IMAGES))
    read = teacher.body(teacher.quant(IMAGES)).dequantize()
    assert torch.equal(features["penultimate"], read)


def test_a_dynamic_teacher_teaches() -> None:
    teacher = quantization.quantize_dynamic(network().eval(), {nn.Linear}, dtype=torch.qint8)
    distiller = wire(network(seed=1), teacher, {"kd": 1, "pefd": 1}, example=IMAGES)
    assert distiller.teacher is not None
    features = distiller.teacher.network.eval().features(IMAGES)
    assert torch.equal(features["logits"], teacher(IMAGES))
    assert torch.equal(features["penultimate"], teacher[:-1](IMAGES))


def test_maps_are_read_in_real_numbers() -> None:
    teacher, taps = converted(Static()), {"teacher": {"stage1": "body.2"}}
    distiller = wire(
        network(seed=1), teacher, {"at": {"stages": ["stage1"]}}, example=IMAGES, taps=taps
    )
    assert distiller(IMAGES, LABELS)["at"].isfinite()


def test_logits_that_read_more_than_one_vector_are_refused_with_the_cause() -> None:
    class Scaled(Static):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.mean((1, 2, 3))[:, None]

    with pytest.raises(ShapeError, match=r"It has quantised layers, .* by classifier: 'fc'"):
        wire(network(seed=1), converted(Scaled()), {"kd": 1}, example=IMAGES)


def test_a_quantised_student_is_refused() -> None:
    with pytest.raises(NetworkError, match="cannot be trained: give the network before its quant"):
        wire(
            converted(Static()), network(), {"kd": 1}, example=IMAGES, classifier={"student": "fc"}
        )


def test_in_a_recipe_its_function_loads_the_weights(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    content = {
        "data": {"source": "folder", "root": str(tree), "size": 32, "augment": "none"},
        "student": {"name": "resnet8"},
        "teacher": {"name": f"{tmp_path}/mine.py:factory", "weights": "own", "classifier": "fc"},
        "methods": {"kd": {}},
        "training": {"epochs": 1, "batch": 6},
    }
    run = train(Recipe.from_dict(content), out=tmp_path / "run", device="cpu")
    assert run.environment["digests"]["teacher"]
    torch.save(network().state_dict(), tmp_path / "weights.pth")
    other = Recipe.from_dict(
        content | {"teacher": content["teacher"] | {"weights": str(tmp_path / "weights.pth")}}
    )
    with pytest.raises(NetworkError, match=r"layers are quantised \(.*give 'own' as weights"):
        train(other, out=tmp_path / "other", device="cpu")
