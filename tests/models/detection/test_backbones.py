"""Backbones of detectors: networks of torchvision and timm, their weights, frozen stages."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from tests.support.small_detectors import CLASSES, OPTIONS, detector
from understudy.errors import NetworkError
from understudy.models import detection
from understudy.models.detection import NOMINAL_SIZE, backbones

pytestmark = pytest.mark.usefixtures("quick_weights")


def find(family: str, **given: Any) -> detection.Detector:
    options = {**OPTIONS[family], "backbone": "timm:test_resnet", **given.pop("options", {})}
    return detection.find(family, options=options, **given)


def test_a_vgg_is_cut_after_each_pool() -> None:
    backbone = backbones.build_backbone("vgg11", (4, 8, 16, 32), trainable=3)
    assert backbone.widths == [128, 256, 512, 512]
    maps = backbone.body.eval()(torch.rand(1, 3, 64, 64))
    assert [x.shape[2] for x in maps.values()] == [16, 8, 4, 2]
    assert all(isinstance(backbone.body[path], nn.MaxPool2d) for path in backbone.stages)
    frozen = {
        name.split(".")[0] for name, p in backbone.body.named_parameters() if not p.requires_grad
    }
    assert frozen == {"0", "3"}  # the convolutions before the second pool


@pytest.mark.parametrize("family", ["fasterrcnn", "fcos"])
def test_maps_have_the_names_of_their_strides(family: str) -> None:
    found = detector(family, "mobilenet_v3_small")
    names = [name for name in found.shapes if f"{name}/scores" in found.shapes]
    first = 2 if family == "fasterrcnn" else 3
    assert names == [f"p{i}" for i in range(first, first + 5)]
    for name in names:
        assert found.shapes[name] == (
            OPTIONS[family]["channels"],
            *[NOMINAL_SIZE >> int(name[1])] * 2,
        )


def test_a_resnet_freezes_as_torchvisions_does() -> None:
    for layers in (0, 2, 4, 5):
        ours = backbones.build_backbone("resnet18", (4, 8, 16, 32), trainable=layers).body
        theirs = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=layers
        ).body
        trained = {name for name, p in theirs.named_parameters() if p.requires_grad}
        norms = {name for name, p in ours.named_parameters() if p.requires_grad}
        # Frozen norms, which torchvision has here, have no parameters.
        assert trained <= norms
        assert all(
            ".bn" in name or "bn1" in name or "downsample.1" in name for name in norms - trained
        )


def test_stages_of_timm_freeze(tmp_path: Path) -> None:
    backbone = backbones.build_backbone("timm:test_resnet", (4, 8, 16, 32), trainable=1)
    trained = {n.split(".")[1] for n, p in backbone.body.named_parameters() if p.requires_grad}
    assert trained == {"layer4"}


@pytest.mark.parametrize("name", ["resnet18", "timm:test_resnet"])
def test_a_backbone_starts_from_a_classifier(name: str, tmp_path: Path) -> None:
    make = resnet18 if name == "resnet18" else timm.create_model
    classifier = make(num_classes=7) if name == "resnet18" else make("test_resnet", num_classes=7)
    for norm in (m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
    path = tmp_path / "classifier.safetensors"
    save_file(classifier.state_dict(), path)
    found = detector("fcos", name, backbone_weights=str(path)).module
    body = found.backbone.body.eval()
    images, theirs = torch.rand(1, 3, 64, 64), classifier.eval()
    with torch.no_grad():
        expected = theirs.conv1(images)
        for part in ("bn1", "relu" if name == "resnet18" else "act1", "maxpool"):
            expected = getattr(theirs, part)(expected)
        for i in (1, 2, 3, 4):
            expected = getattr(theirs, f"layer{i}")(expected)
        torch.testing.assert_close(body(images)["2"], expected)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in body.modules())
    frozen = {n for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen
    assert not any("layer2" in n or "layer3" in n or "layer4" in n for n in frozen)
    with pytest.raises(NetworkError, match="do not fit"):
        detector("fcos", "mobilenet_v3_small", backbone_weights=str(path))


def test_weights_of_a_backbone_have_torchvisions_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (resnet50() for _ in range(2))
    weights = models.ResNet50_Weights.IMAGENET1K_V1, models.ResNet50_Weights.IMAGENET1K_V2
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    for network, each in zip((first, second), weights, strict=True):
        torch.save(network.state_dict(), cache / Path(each.url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, expected in (("IMAGENET1K_V1", first), ("pretrained", second)):
        options = {"backbone": "resnet50", "backbone_weights": name}
        whole = {"backbone_weights": name}
        for kind, given in (("fcos", options), ("torchvision:fcos_resnet50_fpn", whole)):
            body = detection.find(kind, num_classes=3, options=given).module.backbone.body
            assert torch.equal(body.conv1.weight, expected.conv1.weight)
            assert isinstance(body.bn1, FrozenBatchNorm2d)
    with pytest.raises(NetworkError, match="a family such as fasterrcnn does"):
        detection.find("torchvision:fcos_resnet50_fpn", options={"backbone_weights": "my.pth"})


def test_frozen_norms_are_restored_with_the_weights(tmp_path: Path) -> None:
    save_file(resnet18().state_dict(), tmp_path / "backbone.safetensors")
    options = {"backbone": "resnet18", "backbone_weights": str(tmp_path / "backbone.safetensors")}
    first = find("fasterrcnn", num_classes=3, options=options)
    assert isinstance(first.module.backbone.body.bn1, FrozenBatchNorm2d)
    save_file(first.plain().state_dict(), tmp_path / "detector.safetensors")
    Path(options["backbone_weights"]).unlink()  # not asked for again
    again = find(
        "fasterrcnn",
        num_classes=3,
        options=options,
        weights=str(tmp_path / "detector.safetensors"),
    )
    assert isinstance(again.module.backbone.body.bn1, FrozenBatchNorm2d)
    trained = [
        {n for n, p in x.module.named_parameters() if p.requires_grad} for x in (first, again)
    ]
    assert trained[0] == trained[1]
    for mine, theirs in zip(
        first.module.state_dict().values(), again.module.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_the_module_of_the_docstring_loads_the_weights() -> None:
    layers, widths = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    plain = FasterRCNN(BackboneWithFPN(resnet18(), layers, widths, 32), num_classes=CLASSES + 1)
    plain.load_state_dict(detector("fasterrcnn", "resnet18").plain().state_dict())
