"""Detectors by name: options, weights and classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models
from torchvision.models import resnet18
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from tests.support.small_detectors import OPTIONS, detector, scene
from understudy import tasks
from understudy.config.recipe import Recipe
from understudy.distillation.wire import wire
from understudy.errors import NameNotFound, NetworkError, RecipeError
from understudy.experiment import networks
from understudy.models import detection
from understudy.models.weights import read

OWN = '''
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import mobilenet_backbone
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign


def single(num_classes, side=64):
    """Without a pyramid: a backbone with one map."""
    body = mobilenet_backbone(
        backbone_name="mobilenet_v3_small", weights=None, fpn=False, trainable_layers=6
    )
    anchors = AnchorGenerator(((32,),), ((1.0,),))
    return FasterRCNN(
        body,
        num_classes,
        min_size=side,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
    )


def nothing(num_classes):
    from torch import nn

    return nn.Identity()
'''


def find(family: str, **given: Any) -> detection.Detector:
    options = {**OPTIONS[family], "backbone": "timm:test_resnet", **given.pop("options", {})}
    return detection.find(family, options=options, **given)


# ---- names and options ---------------------------------------------------------------------------


def test_names() -> None:
    assert {"fasterrcnn", "ssdlite", "torchvision:ssd300_vgg16"} <= set(detection.names())
    assert not [name for name in detection.names() if "mask" in name or "keypoint" in name]
    with pytest.raises(NameNotFound, match="did you mean 'fasterrcnn'"):
        detection.find("fasterrcn")
    with pytest.raises(NetworkError, match="fasterrcnn_resnet50_fpn, the same detector without"):
        detection.find("torchvision:maskrcnn_resnet50_fpn")


def test_masks_are_refused_in_a_module_too() -> None:
    backbone = BackboneWithFPN(resnet18(), {"layer4": "0"}, [512], 8)
    with pytest.raises(NetworkError, match="masks and keypoints are not distilled"):
        detection.wrap(MaskRCNN(backbone, 3))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("fasterrcnn", {"min_sise": 64}, "did you mean 'min_size'"),
        ("ssdlite", {"min_size": 64}, "no option 'min_size'"),
        ("ssdlite", {"channels": 64}, "no option 'channels'"),
        ("ssdlite", {"anchors": [16]}, "no option 'anchors'"),
        ("retinanet", {"anchors": [16, 32]}, "anchors are 5 sizes above 0, one for each map"),
        ("fasterrcnn", {"backbone": "resnet19"}, "did you mean 'resnet18'"),
        ("fasterrcnn", {"backbone": "timm:test_resne"}, "did you mean 'test_resnet'"),
        ("fasterrcnn", {"backbone": "hf:resnet"}, "name one of torchvision"),
        ("fasterrcnn", {"backbone": "timm:test_vit"}, "strides 4, 8, 16, 32, but .* gives 16"),
        ("fcos", {"backbone": "regnet_x_400mf"}, "strides 8, 16, 32, but .* gives 2, 32"),
        ("fasterrcnn", {"trainable_layers": 6}, "has 5 stages"),
        ("fasterrcnn", {"backbone_weights": "nowhere.pth"}, "no weights at nowhere.pth"),
        ("fasterrcnn", {"backbone_weights": "IMAGENET1K_V2"}, "are: IMAGENET1K_V1"),
        ("fcos", {"backbone": "timm:test_resnet", "backbone_weights": "no.pth"}, "at no.pth"),
    ],
)
def test_wrong_options_are_named(family: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        detection.find(family, num_classes=3, options={"backbone": "resnet18", **options})


def test_torchvisions_detectors_take_its_keywords() -> None:
    name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    found = detection.find(name, num_classes=3, options={"min_size": 64, "max_size": 96})
    assert found.num_classes == 3
    assert found.module.transform.min_size == (64,)
    # Both maps of this backbone have the stride 32; the last has the name.
    maps = ["p5", "p6", "p5/scores", "p6/scores"]
    assert list(found.shapes) == [*maps, "penultimate", "logits"]
    assert found.observe(scene()).losses
    with pytest.raises(NetworkError, match="did you mean 'box_nms_thresh'"):
        detection.find(name, num_classes=3, options={"box_nms_tresh": 0.5})


def test_a_detector_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    found = detection.find(f"{path}:single", num_classes=3, options={"side": 96})
    assert found.module.transform.min_size == (96,)
    assert found.num_classes == 3
    assert list(found.shapes) == ["p5", "p5/scores", "penultimate", "logits"]
    seen = found.observe(scene())
    assert seen.features["p5"].shape[1] == 256
    with pytest.raises(NetworkError, match="Identity is no detector"):
        detection.find(f"{path}:nothing", num_classes=3)


@pytest.mark.parametrize("family", ["fasterrcnn", "fcos", "retinanet"])
def test_anchors_have_the_sizes_that_are_asked_for(family: str) -> None:
    torchvisions = [8, 16, 32, 64, 128] if family == "fcos" else [32, 64, 128, 256, 512]
    usual, same, half = (
        detector(family, "resnet18", **({"anchors": sizes} if sizes else {})).eval()
        for sizes in ([], torchvisions, [size // 2 for size in torchvisions])
    )
    seen = [each.observe(scene()).features["penultimate"] for each in (usual, same, half)]
    assert torch.equal(seen[0], seen[1])
    generators = [
        each.module.rpn.anchor_generator if family == "fasterrcnn" else each.module.anchor_generator
        for each in (usual, same, half)
    ]
    assert generators[0].sizes == generators[1].sizes
    assert generators[0].aspect_ratios == generators[1].aspect_ratios == generators[2].aspect_ratios
    assert [each[0] for each in generators[2].sizes] == [size // 2 for size in torchvisions]
    assert half.module.state_dict().keys() == usual.module.state_dict().keys()
    assert half.train().observe(scene()).losses


# ---- weights and classes -------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_weights_of_other_classes(family: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(find(family, num_classes=5).plain().state_dict(), path)
    assert find(family, num_classes=5, weights=str(path)).num_classes == 5
    assert find(family, weights=str(path)).num_classes == 5
    assert (
        find(family, num_classes=3, weights=str(path), classes_from_weights=True).num_classes == 5
    )
    with pytest.raises(NetworkError, match="has 5 classes, 3 were asked for"):
        find(family, num_classes=3, weights=str(path))
    renewed = find(family, num_classes=3, weights=str(path), reset_classifier=True)
    assert renewed.num_classes == 3
    state, kept = read(path), dict(renewed.plain().state_dict())
    assert renewed.observe(scene()).losses
    other = {name for name, x in kept.items() if not torch.equal(x, state[name])}
    assert other == {
        f"{layer}.{part}"
        for layer in detection.classes.class_layers(renewed.module)
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_columns_of_coco_without_a_class_are_removed(family: str, tmp_path: Path) -> None:
    whole = find(family)
    assert whole.num_classes == 90
    torch.save(whole.plain().state_dict(), tmp_path / "coco.pth")
    assert find(family, num_classes=90, weights=str(tmp_path / "coco.pth")).num_classes == 90
    cut = find(family, num_classes=80, weights=str(tmp_path / "coco.pth")).eval()
    assert cut.num_classes == 80 == len(detection.COCO_CLASSES)
    seen = cut.observe(scene())
    expected = whole.eval().at(seen.locations)
    for name, logits in seen.features.items():
        if name.endswith("logits"):
            columns = expected[name].unflatten(1, (-1, 91))[..., detection.classes.COCO_COLUMNS]
            torch.testing.assert_close(logits, columns.flatten(1))
    assert cut.outputs(scene()).keys() == {"boxes", "scores", "classes", "image"}


def test_torchvisions_weights_for_coco_are_loaded_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, small = "torchvision:ssdlite320_mobilenet_v3_large", {"detections_per_img": 5}
    whole = detection.find(name)
    assert whole.num_classes == 90
    weights = models.get_model_weights(name.partition(":")[2]).DEFAULT
    path = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    path.parent.mkdir(parents=True)
    torch.save(whole.plain().state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def found(classes: int | None, **given: Any) -> detection.Detector:
        return detection.find(
            name, num_classes=classes, weights="pretrained", options=small, **given
        )

    assert found(None).num_classes == found(80).num_classes == 80
    own, renewed = found(3, classes_from_weights=True), found(3, reset_classifier=True)
    assert (own.num_classes, renewed.num_classes) == (80, 3)
    kept = {key: x for key, x in renewed.module.state_dict().items() if "classification" not in key}
    assert all(torch.equal(x, whole.module.state_dict()[key]) for key, x in kept.items())
    with pytest.raises(NetworkError, match="has 80 classes, 3 were asked for"):
        found(3)

    wanted = Recipe.from_dict({"teacher": {"name": name, "weights": "pretrained"}})
    task = tasks.find("detection")
    names = detection.COCO_CLASSES
    assert networks.teacher(wanted, names, task, view_size=64).num_classes == 80
    # COCO's names in another order are matched: the teacher's classes follow those of the data.
    same, turned = (
        networks.teacher(wanted, order, task, view_size=64).module.state_dict()
        for order in (names, (*names[1:], names[0]))
    )
    changed = [key for key, x in same.items() if not torch.equal(x, turned[key])]
    assert changed
    assert all("classification" in key for key in changed)


def test_a_detector_takes_no_input_contract() -> None:
    wanted = Recipe.from_dict({"teacher": {"name": "fcos", "size": 64}})
    with pytest.raises(RecipeError, match=r"takes no teacher\.size"):
        networks.teacher(wanted, ("a", "b"), tasks.find("detection"), view_size=64)


def test_families_have_no_pretrained_weights() -> None:
    with pytest.raises(NetworkError, match="backbone_weights"):
        find("fcos", num_classes=3, weights="pretrained")


def test_weights_of_another_detector_are_refused(tmp_path: Path) -> None:
    torch.save(find("fcos", num_classes=3).plain().state_dict(), tmp_path / "fcos.pth")
    with pytest.raises(NetworkError, match="do not fit"):
        find("retinanet", num_classes=3, weights=str(tmp_path / "fcos.pth"))


# ---- methods -------------------------------------------------------------------------------------


def test_reviewkd_compares_the_maps_of_a_pyramid() -> None:
    student, teacher = (detector("fasterrcnn", b) for b in ("timm:test_resnet", "resnet18"))
    methods = {"reviewkd": {}, "nd": {}, "map": {"method": "fitnet", "feature": "p4"}}
    distiller = wire(student, teacher, methods, task="detection")
    distiller.prepare([scene()])
    method = distiller.train().trainable.methods["reviewkd"]
    assert method.pairs == tuple((f"p{i}", f"p{i}") for i in range(2, 7))
    losses = distiller(scene())
    distiller.total(losses).backward()
    assert losses["reviewkd"] > 0
    assert all(p.grad is not None for p in method.parameters())


def test_student_and_teacher_of_different_classes_are_refused() -> None:
    with pytest.raises(NetworkError, match="at different locations in an image"):
        wire(
            detector("fcos", "resnet18"),
            detector("ssd", "resnet18"),
            {"l2": {"method": "lshfm"}},
            task="detection",
        )
    five = detector("ssd", "resnet18", extra=[32, 32, 32])
    with pytest.raises(NetworkError, match="with equally many levels"):
        wire(detector("ssd", "resnet18"), five, {"kd": 1}, task="detection")
