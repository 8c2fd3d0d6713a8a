"""Detectors by name, their backbones, weights and classes, and the levels of SSD."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_detectors import CLASSES, OPTIONS, detector, scene
from torch import nn
from torchvision import models
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from understudy import networks, recipe, tasks
from understudy.errors import DataError, NameNotFound, NetworkError, RecipeError, ShapeError
from understudy.methods.fitnet import fitnet
from understudy.methods.kd import kd
from understudy.models import detection
from understudy.models.detection import NOMINAL, backbones
from understudy.models.detection._detector import inputs
from understudy.models.weights import read
from understudy.wiring import wire

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
    trunk = BackboneWithFPN(resnet18(), {"layer4": "0"}, [512], 8)
    with pytest.raises(NetworkError, match="masks and keypoints are not distilled"):
        detection.wrap(MaskRCNN(trunk, 3))


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


def test_torchvisions_names_take_its_keywords() -> None:
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


def test_torchvisions_ssdlite_is_read() -> None:
    found = detection.find("torchvision:ssdlite320_mobilenet_v3_large", num_classes=3)
    seen = found.observe(scene())
    grids = (20, 10, 5, 3, 2, 1)
    assert len(seen.batch) == len(seen.places) == 2 * sum(side**2 for side in grids)
    widths = [found.shapes[f"level{i}/penultimate"] for i in range(1, 7)]
    assert widths == [(672,), (480,), (512,), (256,), (256,), (128,)]
    with pytest.raises(NetworkError, match=r"training\.only"):
        detection.find(found.name, num_classes=3, options={"trainable_layers": 2})


def test_levels_of_ssd300_have_different_numbers_of_boxes() -> None:
    found = detection.find("torchvision:ssd300_vgg16", num_classes=3)
    levels = [found.shapes[f"level{i}/logits"] for i in range(1, 7)]
    assert levels == [(16,), (24,), (24,), (24,), (16,), (16,)]
    assert found.shapes["level1/penultimate"] == (9 * 512,)
    with torch.no_grad():
        features = found.observe(scene(1)).features
    assert [len(features[f"level{i}/logits"]) for i in range(1, 7)] == [1444, 361, 100, 25, 9, 1]


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


# ---- backbones -----------------------------------------------------------------------------------


def test_a_vgg_is_cut_after_each_pool() -> None:
    trunk = backbones.trunk("vgg11", (4, 8, 16, 32), trainable=3)
    assert trunk.widths == [128, 256, 512, 512]
    maps = trunk.body.eval()(torch.rand(1, 3, 64, 64))
    assert [x.shape[2] for x in maps.values()] == [16, 8, 4, 2]
    assert all(isinstance(trunk.body[path], nn.MaxPool2d) for path in trunk.stages)
    frozen = {
        name.split(".")[0] for name, p in trunk.body.named_parameters() if not p.requires_grad
    }
    assert frozen == {"0", "3"}  # the convolutions before the second pool


@pytest.mark.parametrize("family", ["fasterrcnn", "fcos"])
def test_maps_have_the_names_of_their_strides(family: str) -> None:
    found = detector(family, "mobilenet_v3_small")
    names = [name for name in found.shapes if f"{name}/scores" in found.shapes]
    first = 2 if family == "fasterrcnn" else 3
    assert names == [f"p{i}" for i in range(first, first + 5)]
    for name in names:
        assert found.shapes[name] == (32, *[NOMINAL >> int(name[1])] * 2)


def test_a_resnet_freezes_as_torchvisions_does() -> None:
    for layers in (0, 2, 4, 5):
        ours = backbones.trunk("resnet18", (4, 8, 16, 32), trainable=layers).body
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
    trunk = backbones.trunk("timm:test_resnet", (4, 8, 16, 32), trainable=1)
    trained = {n.split(".")[1] for n, p in trunk.body.named_parameters() if p.requires_grad}
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


def test_weights_of_a_backbone_go_by_torchvisions_names(
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


def test_frozen_norms_come_back_with_the_weights(tmp_path: Path) -> None:
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


def test_the_docstring_tells_how_to_build_it_again() -> None:
    layers, widths = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    plain = FasterRCNN(BackboneWithFPN(resnet18(), layers, widths, 32), num_classes=CLASSES + 1)
    plain.load_state_dict(detector("fasterrcnn", "resnet18").plain().state_dict())


# ---- weights and classes -------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_weights_of_other_classes(family: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(find(family, num_classes=5).plain().state_dict(), path)
    assert find(family, num_classes=5, weights=str(path)).num_classes == 5
    assert find(family, weights=str(path)).num_classes == 5
    assert find(family, num_classes=3, weights=str(path), own_classes=True).num_classes == 5
    with pytest.raises(NetworkError, match="tells 5 classes apart, 3 were asked for"):
        find(family, num_classes=3, weights=str(path))
    renewed = find(family, num_classes=3, weights=str(path), new_classifier=True)
    assert renewed.num_classes == 3
    state, kept = read(path), dict(renewed.plain().state_dict())
    assert renewed.observe(scene()).losses
    other = {name for name, x in kept.items() if not torch.equal(x, state[name])}
    assert other == {
        f"{layer}.{part}"
        for layer in detection.classes.layers(renewed.module)
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_columns_of_coco_that_mean_nothing_are_left_out(family: str, tmp_path: Path) -> None:
    whole = find(family)
    assert whole.num_classes == 90
    torch.save(whole.plain().state_dict(), tmp_path / "coco.pth")
    assert find(family, num_classes=90, weights=str(tmp_path / "coco.pth")).num_classes == 90
    cut = find(family, num_classes=80, weights=str(tmp_path / "coco.pth")).eval()
    assert cut.num_classes == 80 == len(detection.COCO_CLASSES)
    seen = cut.observe(scene())
    expected = whole.eval().at(seen.places)
    for name, logits in seen.features.items():
        if name.endswith("logits"):
            columns = expected[name].unflatten(1, (-1, 91))[..., detection.classes.COCO_COLUMNS]
            torch.testing.assert_close(logits, columns.flatten(1))
    assert cut.outputs(scene()).keys() == {"boxes", "scores", "classes", "image"}


def test_what_torchvision_trained_on_coco_comes_from_its_cache(
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
    own, renewed = found(3, own_classes=True), found(3, new_classifier=True)
    assert (own.num_classes, renewed.num_classes) == (80, 3)
    kept = {key: x for key, x in renewed.module.state_dict().items() if "classification" not in key}
    assert all(torch.equal(x, whole.module.state_dict()[key]) for key, x in kept.items())
    with pytest.raises(NetworkError, match="tells 80 classes apart, 3 were asked for"):
        found(3)

    wanted = recipe.parse({"teacher": {"name": name, "weights": "pretrained"}})
    task = tasks.find("detection")
    names = detection.COCO_CLASSES
    assert networks.teacher(wanted, names, task, shown=64).num_classes == 80
    with pytest.raises(DataError, match="class 0 is 'bicycle' in the data but 'person'"):
        networks.teacher(wanted, (*names[1:], names[0]), task, shown=64)


def test_a_detector_takes_no_input_contract() -> None:
    wanted = recipe.parse({"teacher": {"name": "fcos", "size": 64}})
    with pytest.raises(RecipeError, match=r"takes no teacher\.size"):
        networks.teacher(wanted, ("a", "b"), tasks.find("detection"), shown=64)


def test_only_torchvisions_own_are_pretrained() -> None:
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


def test_detectors_of_different_kinds_do_not_meet() -> None:
    with pytest.raises(NetworkError, match="at different places in an image"):
        wire(
            detector("fcos", "resnet18"),
            detector("ssd", "resnet18"),
            {"l2": {"method": "lshfm"}},
            task="detection",
        )
    five = detector("ssd", "resnet18", extra=[32, 32, 32])
    with pytest.raises(NetworkError, match="with as many levels"):
        wire(detector("ssd", "resnet18"), five, {"kd": 1}, task="detection")


# ---- levels of SSD -------------------------------------------------------------------------------


def ssd_pair(methods: dict[str, Any]) -> Any:
    student, teacher = (detector("ssdlite", "resnet18", seed=seed) for seed in (1, 2))
    return wire(student, teacher, methods, task="detection").train()


def test_a_loss_over_levels_is_the_mean_over_all_rows() -> None:
    given = {"fitnet": {"projector": "none", "weight": 1}, "kd": {"temperature": 2.0, "weight": 1}}
    distiller = ssd_pair(given)
    losses = distiller(scene())
    seen = distiller.student.observe(scene())
    theirs = distiller.teacher.at(seen.places)
    squares, divergences = [], []
    for level in distiller.student.shapes.groups:
        s, t = (x[f"{level}/penultimate"] for x in (seen.features, theirs))
        u, v = (x[f"{level}/logits"] for x in (seen.features, theirs))
        squares.append(fitnet(s, t))
        assert u.shape[1] == 6 * (CLASSES + 1)
        divergences += [
            kd(u[:, i : i + CLASSES + 1], v[:, i : i + CLASSES + 1], 2.0)
            for i in range(0, u.shape[1], CLASSES + 1)
        ]
    torch.testing.assert_close(losses["fitnet"], torch.cat(squares).mean())
    torch.testing.assert_close(losses["kd"], torch.cat(divergences).mean())


def test_hashes_alone_are_unbounded_at_levels_too() -> None:
    for terms in ("lsh", "lshl2"):
        distiller = ssd_pair({"lshfm": {"terms": terms, "hashes": 8, "weight": 1}})
        assert distiller.trainable.unbounded == (terms == "lsh")


def test_labels_of_a_level_are_those_of_the_matched_boxes() -> None:
    found = detector("ssdlite", "resnet18")
    images, targets = inputs(scene())
    seen = found.observe(scene())
    resized, _ = found.module.transform(images, targets)
    maps = list(found.module.backbone(resized.tensors).values())
    start = 0
    for level, x in enumerate(maps):
        height, width = x.shape[2:]
        labels = seen.batch.labels[start : start + 2 * height * width].view(2, height, width)
        start += labels.numel()
        there = {i: set(labels[i].flatten().tolist()) - {0} for i in range(2)}
        assert all(there[i] <= set(targets[i]["labels"].tolist()) for i in range(2)), level
    assert start == len(seen.batch)
    # Every object is matched to its best box at least.
    for i, each in enumerate(targets):
        assert set(each["labels"].tolist()) <= set(seen.batch.labels.tolist()), i


def test_an_image_without_objects_is_background() -> None:
    batch = scene()
    batch.objects.difficult[0].fill_(True)
    seen = detector("ssdlite", "resnet18").observe(batch)
    level = seen.batch.labels[: 2 * 16].view(2, 16)
    assert not level[0].any()


@pytest.mark.parametrize("family", ["ssd", "ssdlite"])
def test_an_embedding_folds_into_the_scores(family: str, tmp_path: Path) -> None:
    found = detector(family, "resnet18").eval()
    for level in found.shapes.groups:
        found.part(level).embed(24)
        assert found.part(level).shapes["penultimate"] == (24,)
    seen = found.observe(scene())
    plain = detection.wrap(found.plain()).eval()
    again = plain.at(seen.places)
    for level in found.shapes.groups:
        part, rows = found.part(level), seen.features[f"{level}/penultimate"]
        logits = rows @ part.classifier_weight.T + part.classifier_bias
        expected = seen.features[f"{level}/logits"]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again[f"{level}/logits"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(NetworkError, match="another width"):
        found.part("level1").embed(25)
    save_file(found.module.state_dict(), tmp_path / "embedded.safetensors")
    given = {**OPTIONS[family], "backbone": "resnet18"}
    restored = detection.find(
        family, num_classes=3, options=given, weights=str(tmp_path / "embedded.safetensors")
    )
    assert restored.shapes["level1/penultimate"] == (24,)


def test_maps_of_other_sizes_do_not_meet() -> None:
    seen = detector("ssdlite", "resnet18").observe(scene())
    other = detection.find("torchvision:ssdlite320_mobilenet_v3_large", num_classes=3).eval()
    with pytest.raises(NetworkError, match=r"have 4 x 4, 2 x 2, 1 x 1, .* of the student's"):
        other.at(seen.places)


def test_stages_are_refused_at_levels() -> None:
    with pytest.raises(ShapeError, match="level1 of ssdlite has no feature 'stage2'"):
        ssd_pair({"fitnet": {"feature": "stage2", "weight": 1}})
