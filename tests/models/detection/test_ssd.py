"""SSD and SSDlite: every level is a group of locations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.small_detectors import CLASSES, OPTIONS, detector, scene
from understudy.distillation.wire import wire
from understudy.errors import NetworkError, ShapeError
from understudy.methods.fitnet import fitnet
from understudy.methods.kd import kd
from understudy.models import detection
from understudy.models.detection._detector import inputs

pytestmark = pytest.mark.usefixtures("quick_weights")


def test_torchvisions_ssdlite_is_read() -> None:
    found = detection.find("torchvision:ssdlite320_mobilenet_v3_large", num_classes=3)
    seen = found.observe(scene())
    grids = (20, 10, 5, 3, 2, 1)
    assert len(seen.batch) == len(seen.locations) == 2 * sum(side**2 for side in grids)
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


def ssd_pair(methods: dict[str, Any]) -> Any:
    student, teacher = (detector("ssdlite", "resnet18", seed=seed) for seed in (1, 2))
    return wire(student, teacher, methods, task="detection").train()


def test_a_loss_over_levels_is_the_mean_over_all_rows() -> None:
    given = {"fitnet": {"projector": "none", "weight": 1}, "kd": {"temperature": 2.0, "weight": 1}}
    distiller = ssd_pair(given)
    losses = distiller(scene())
    seen = distiller.student.observe(scene())
    theirs = distiller.teacher.at(seen.locations)
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
        assert distiller.trainable.unbounded_loss == (terms == "lsh")


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
        classes = {i: set(labels[i].flatten().tolist()) - {0} for i in range(2)}
        assert all(classes[i] <= set(targets[i]["labels"].tolist()) for i in range(2)), level
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
        found.group(level).embed(24)
        assert found.group(level).shapes["penultimate"] == (24,)
    seen = found.observe(scene())
    plain = detection.wrap(found.plain()).eval()
    again = plain.at(seen.locations)
    for level in found.shapes.groups:
        group, rows = found.group(level), seen.features[f"{level}/penultimate"]
        logits = rows @ group.classifier_weight.T + group.classifier_bias
        expected = seen.features[f"{level}/logits"]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again[f"{level}/logits"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(NetworkError, match="another width"):
        found.group("level1").embed(25)
    save_file(found.module.state_dict(), tmp_path / "embedded.safetensors")
    given = {**OPTIONS[family], "backbone": "resnet18"}
    restored = detection.find(
        family, num_classes=3, options=given, weights=str(tmp_path / "embedded.safetensors")
    )
    assert restored.shapes["level1/penultimate"] == (24,)


def test_a_teacher_with_maps_of_other_sizes_is_refused() -> None:
    seen = detector("ssdlite", "resnet18").observe(scene())
    other = detection.find("torchvision:ssdlite320_mobilenet_v3_large", num_classes=3).eval()
    with pytest.raises(NetworkError, match=r"have 4 x 4, 2 x 2, 1 x 1, .* of the student's"):
        other.at(seen.locations)


def test_stages_are_refused_at_levels() -> None:
    with pytest.raises(ShapeError, match="level1 of ssdlite has no feature 'stage2'"):
        ssd_pair({"fitnet": {"feature": "stage2", "weight": 1}})
