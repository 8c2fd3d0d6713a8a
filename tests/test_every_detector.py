"""Contract of every family of detectors over any backbone, with methods on rows at locations."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.small_detectors import CLASSES, FAMILIES, OPTIONS, SIDE, detector, scene
from understudy import tasks
from understudy.distillation.distiller import Distiller, Weight
from understudy.distillation.wire import wire
from understudy.models.detection import families
from understudy.models.detection._detector import inputs

BACKBONES = ["resnet18", "mobilenet_v3_small", "timm:test_resnet"]
METHODS: dict[str, Any] = {
    **{
        terms: {"method": "lshfm", "terms": terms, "hashes": 64, "weight": 1}
        for terms in ("l2", "lsh", "lshl2")
    },
    "pefd": {"weight": 1, "projectors": 1},
    "nd": 1,
    "fitnet": 1,
    "kd": 1,
}
"""Methods on vectors and logits, with the published settings for detection."""


class Counter(TorchDispatchMode):
    """Count the operations of torch that run."""

    counted = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.counted += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pair(family: str, methods: dict[str, Any]) -> Distiller:
    """Wire a student and a teacher of different backbones, and so of different widths."""
    student = detector(family, "timm:test_resnet", seed=1)
    teacher = detector(family, "resnet18", seed=2)
    distiller = wire(student, teacher, methods, task="detection")
    distiller.prepare([scene()])
    return distiller.train()


def losses_of(distiller: Distiller) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return distiller(scene())  # type: ignore[no-any-return]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_own_losses_and_gradients_are_torchvisions(family: str, backbone: str) -> None:
    watched = detector(family, backbone).train()
    plain = deepcopy(watched.module)
    torch.manual_seed(3)
    seen = watched.observe(scene())
    torch.manual_seed(3)
    expected = plain(*inputs(scene()))
    assert len(seen.losses) == len(expected)
    for (name, ours), (key, theirs) in zip(seen.losses.items(), expected.items(), strict=True):
        assert name == f"task/{key.removeprefix('loss_')}"
        assert torch.equal(ours, theirs)
    for losses in (seen.losses, expected):
        torch.stack(list(losses.values())).sum().backward()
    for ours, theirs in zip(watched.module.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_features_have_the_stated_names_and_shapes(family: str) -> None:
    found = detector(family, "mobilenet_v3_small")
    for training in (True, False):
        seen = found.train(training).observe(scene())
        assert list(seen.features) == list(found.shapes)
        for name, x in seen.features.items():
            assert x.shape[1] == found.shapes[name][0]
            assert x.isfinite().all()
        rows = [len(x) for name, x in seen.features.items() if name.endswith("penultimate")]
        assert sum(rows) == len(seen.batch) == len(seen.locations) > 0
        assert 0 <= seen.batch.labels.min() < seen.batch.labels.max() <= CLASSES


def test_at_own_locations_features_are_those_observed(family: str) -> None:
    found = detector(family, "resnet18").eval()
    seen = found.observe(scene())
    again = found.at(seen.locations)
    assert list(again) == list(seen.features)
    for name, x in seen.features.items():
        torch.testing.assert_close(again[name], x)


def test_methods_take_pairs_of_different_widths(family: str) -> None:
    distiller = pair(family, METHODS)
    losses = losses_of(distiller)
    assert {name for name in losses if "/" not in name} == set(METHODS)
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert all(losses[name] > 0 for name in METHODS if name != "kd")
    distiller.total(losses).backward()
    assert all(p.grad is None for p in distiller.teacher.parameters())
    gradients = [p.grad for p in distiller.student.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_teacher_proposes_and_detects_nothing(family: str) -> None:
    distiller = pair(family, {"pefd": 1})
    module, called = distiller.teacher.network.module, list[str]()

    def note(path: str) -> Any:
        return lambda *_: called.append(path)

    for path, part in module.named_modules():
        if path.split(".")[-1] in ("", "rpn", "transform", "anchor_generator", "roi_heads"):
            part.register_forward_hook(note(path))
    for owner in (module, getattr(module, "roi_heads", module)):
        owner.postprocess_detections = note("postprocess_detections")
    module.backbone.register_forward_hook(note("backbone"))
    losses_of(distiller)
    assert called == ["backbone"]


def test_the_exported_student_is_a_plain_detector(family: str) -> None:
    distiller = pair(family, {"lshfm": {"weight": 1, "hashes": 64}})
    distiller.total(losses_of(distiller)).backward()
    torch.optim.SGD(distiller.student.parameters(), lr=1e-4).step()
    student = distiller.student.eval()
    plain = families.build(
        family, CLASSES + 1, backbone="timm:test_resnet", **OPTIONS[family]
    ).eval()
    assert type(student.plain()) is type(plain)
    plain.load_state_dict(student.plain().state_dict())
    with torch.no_grad():
        found = plain(inputs(scene())[0])
    expected = student.outputs(scene())
    assert len(expected["boxes"]) > 0 or family in ("fcos", "retinanet")
    torch.testing.assert_close(torch.cat([x["boxes"] for x in found]), expected["boxes"])
    torch.testing.assert_close(torch.cat([x["scores"] for x in found]), expected["scores"])
    assert torch.equal(torch.cat([x["labels"] for x in found]) - 1, expected["classes"])


def test_the_state_of_all_that_is_trained_can_be_loaded(family: str) -> None:
    methods = {"lshfm": METHODS["lshl2"], "nd": 1, "pefd": METHODS["pefd"]}
    distiller = pair(family, methods)
    distiller.total(losses_of(distiller)).backward()
    torch.optim.SGD(distiller.trainable.parameters(), lr=1e-3).step()
    state = deepcopy(distiller.trainable.state_dict())
    expected = losses_of(distiller)
    student, teacher = detector(family, "timm:test_resnet"), detector(family, "resnet18", seed=2)
    again = wire(student, teacher, methods, task="detection").train()
    again.trainable.load_state_dict(state)
    found = losses_of(again)
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in expected.items()}


def test_a_teacher_computes_no_more_than_methods_read(family: str) -> None:
    teacher = detector(family, "resnet18").eval()
    locations = teacher.observe(scene()).locations
    whole = teacher.at(locations)
    for name, x in whole.items():
        found = teacher.at(locations, {name})
        assert torch.equal(found[name], x)
    maps = teacher.at(locations, set())
    assert not [name for name in maps if name.endswith("penultimate")]


def test_a_control_computes_what_torchvision_does(family: str) -> None:
    student = detector(family, "resnet18").train()
    plain = deepcopy(student.module)
    control = Distiller(student, {}, {}, tasks.find("detection"), {"task": Weight(1.0)})
    batch = scene()
    torch.manual_seed(3)
    with Counter() as ours:
        losses = control(batch)
    torch.manual_seed(3)
    with Counter() as theirs:
        expected = plain(*inputs(batch))
    assert [x.item() for x in losses.values()] == [x.item() for x in expected.values()]
    assert ours.counted == theirs.counted


def test_prepare_sees_images_as_the_student_resizes_them(family: str) -> None:
    student = detector(family, "timm:test_resnet").train()
    key = "size" if family.startswith("ssd") else "min_size"
    same, larger = (
        detector(family, "resnet18", **{key: side}).eval() for side in (SIDE, SIDE + 32)
    )
    expected, found = (each.observe_for_prepare(scene(), student) for each in (same, larger))
    assert torch.equal(found.batch.labels, expected.batch.labels)
    for name, x in expected.features.items():
        assert torch.equal(found.features[name], x)
