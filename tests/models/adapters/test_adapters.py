"""Networks of a file, a folder and other libraries."""

from pathlib import Path

import pytest
import torch

from understudy import models
from understudy.errors import NetworkError

FILE = """
from torch import nn
from understudy.models import Input, Network

def plain(num_classes=3, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

def explained():
    return Network(plain(), input=Input(size=12, mean=(0.5, 0.5, 0.5)))

def wrong():
    return "a network"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def test_function_in_a_file(file: str) -> None:
    network = models.find(f"{file}:plain", num_classes=7, options={"width": 6}, size=16)
    assert network.num_classes == 7
    assert network.shapes["penultimate"] == (6,)
    assert network.input.size == 16
    network = models.find(f"{file}:explained")
    assert (network.num_classes, network.input.size, network.input.mean[0]) == (3, 12, 0.5)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("plan", "no function 'plan' \\(did you mean 'plain'"),
        ("wrong", "returns str, not a torch module"),
        ("explained", "fails with"),
    ],
)
def test_bad_functions_are_refused(file: str, factory: str, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        models.find(f"{file}:{factory}", options={"x": 1} if factory == "explained" else {})
    with pytest.raises(NetworkError, match="no Python file"):
        models.find(f"missing{file}:{factory}")


def test_factory_whose_classes_are_fixed(file: str) -> None:
    with pytest.raises(NetworkError, match="has 3 classes, 5 were asked for"):
        models.find(f"{file}:explained", num_classes=5)
    student = models.find(f"{file}:explained", num_classes=5, reset_classifier=True)
    assert student.num_classes == 5


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=6,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path)
    return tmp_path


def test_hugging_face_folder(saved: Path) -> None:
    network = models.find(f"hf:{saved}").eval()
    assert network.num_classes == 6
    assert (network.input.size, network.input.mean) == (32, (0.5, 0.5, 0.5))
    assert network.input.interpolation == "bilinear"
    features = network.features(torch.rand(2, 3, 40, 40))
    assert [k for k in features if k.startswith("stage")] == [f"stage{i}" for i in range(1, 5)]
    assert features["stage4"].shape == (2, 17, 16)
    logits = features["penultimate"] @ network.classifier_weight.T + network.classifier_bias
    torch.testing.assert_close(features["logits"], logits)
    with pytest.raises(NetworkError, match="has 6 classes, 5 were asked for"):
        models.find(f"hf:{saved}", num_classes=5)
    student = models.find(f"hf:{saved}", num_classes=5, reset_classifier=True)
    assert student(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_hugging_face_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    with pytest.raises(NetworkError, match=r"preprocessor_config\.json cannot be read"):
        models.find(f"hf:{tmp_path}")
    size = {"shortest_edge": 32}
    transformers.BitImageProcessor(size=size, crop_size=28).save_pretrained(tmp_path)
    network = models.find(f"hf:{tmp_path}").eval()
    assert network.input.size == 28
    assert network.num_classes is None
    assert network.shapes["penultimate"] == (16,)


def test_missing_folder_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(NetworkError, match=r"save_pretrained\(folder\)"):
        models.find(f"hf:{tmp_path}/nowhere")


def test_pretrained_weights_of_other_classes_are_no_teacher(tmp_path: Path) -> None:
    # The stand-in for downloaded weights: a file with the network's own number of classes.
    source = models.find("timm:test_resnet", size=64)
    torch.save(source.module.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(NetworkError, match="1000 classes, 10 were asked for"):
        models.find("timm:test_resnet", num_classes=10, weights=str(tmp_path / "weights.pth"))


def test_pretrained_weights_that_do_not_exist() -> None:
    with pytest.raises(NetworkError, match="has no pretrained weights of its own"):
        models.find("resnet20", weights="pretrained")
    with pytest.raises(NetworkError, match=r"no pretrained weights of .*name a file of weights"):
        models.find("timm:coatnet_pico_rw_224", weights="pretrained")
    with pytest.raises(NetworkError, match=r"Invalid pretrained tag \(no_such\)"):
        models.find("timm:resnet18.no_such", weights="pretrained")


def test_auxiliary_classifiers_are_left_out() -> None:
    network = models.find("torchvision:googlenet", size=64, options={"init_weights": False})
    assert network.train()(torch.rand(2, 3, 64, 64)).shape == (2, 1000)
    assert not any(key.startswith("aux") for key in network.module.state_dict())


def test_only_timm_builds_networks_without_classifier() -> None:
    with pytest.raises(NetworkError, match="without a classifier"):
        models.find("resnet20", num_classes=0)
