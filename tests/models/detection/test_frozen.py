"""A frozen copy equals the detector: norms folded, boxes pooled by one look-up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from understudy import wire
from understudy.batch import Batch
from understudy.config.recipe import Training
from understudy.distillation.distiller import Teacher
from understudy.models import detection
from understudy.models.detection import Detector
from understudy.models.detection._frozen import frozen_copy
from understudy.models.detection._roi_align import TableRoIAlign
from understudy.models.weights import digest
from understudy.training import hardware
from understudy.training.devices import resolve

SIDE = 96


def boxes(count: int, *, side: float) -> Tensor:
    """Return boxes of all sizes and shapes; some beyond the border, some without area."""
    corner = torch.rand(count, 2) * 1.2 * side - 0.1 * side
    extent = torch.rand(count, 2) ** 3 * side
    extent[::7] = 0
    return torch.cat([corner, corner + extent], 1)


@pytest.mark.parametrize(("bins", "points"), [(7, 2), (5, 3), (2, 1)])
@pytest.mark.parametrize("levels", [1, 3])
def test_pooling_is_torchvisions(bins: int, points: int, levels: int) -> None:
    torch.manual_seed(0)
    maps = {str(i): torch.randn(2, 8, 24 >> i, 32 >> i) for i in range(levels)} | {
        "pool": torch.randn(2, 8, 3, 4)
    }
    pool = MultiScaleRoIAlign(
        [str(i) for i in range(levels)], bins, points, canonical_scale=40, canonical_level=3
    )
    given = [boxes(40, side=128), boxes(25, side=60)]
    sizes = [(96, 128), (80, 70)]
    expected = pool(maps, given, sizes)
    assert len(pool.map_levels([torch.cat(given)]).unique()) == levels
    torch.testing.assert_close(
        TableRoIAlign(pool)(maps, given, sizes), expected, rtol=1e-5, atol=1e-5
    )


def test_pooling_takes_images_without_boxes() -> None:
    pool = TableRoIAlign(MultiScaleRoIAlign(["0", "1"], 7, 2))
    maps = {str(i): torch.randn(3, 4, 16 >> i, 16 >> i) for i in range(2)}
    given = [torch.zeros(0, 4), boxes(3, side=64), torch.zeros(0, 4)]
    assert pool(maps, given, [(64, 64)] * 3).shape == (3, 4, 7, 7)
    assert pool(maps, [torch.zeros(0, 4)] * 3, [(64, 64)] * 3).shape == (0, 4, 7, 7)


def test_boxes_of_a_diverged_student_read_nothing() -> None:
    pool = TableRoIAlign(MultiScaleRoIAlign(["0", "1"], 7, 2))
    maps = {str(i): torch.randn(1, 4, 16 >> i, 16 >> i) for i in range(2)}
    broken = torch.tensor([[0.0, 0, torch.nan, 9], [torch.inf, 0, torch.inf, 9]])
    assert not pool(maps, [broken], [(64, 64)]).any()


def with_statistics(module: nn.Module) -> nn.Module:
    """Give norms statistics as in a trained network, so that none is the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d):
            part.weight.data.uniform_(0.3, 0.6)
            part.bias.data.normal_(std=0.2)
            part.running_mean.normal_(std=0.2)  # type: ignore[operator]
            part.running_var.uniform_(0.5, 2)  # type: ignore[operator]
    return module.eval()


def mobile() -> nn.Module:
    layers = {"3": "0", "6": "1", "13": "2"}
    return BackboneWithFPN(mobilenet_v2(weights=None).features, layers, [24, 32, 96], 32)


def small(**options: Any) -> FasterRCNN:
    layers, widths = {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512]
    body = BackboneWithFPN(resnet18(), layers, widths, 32)
    return FasterRCNN(body, options.pop("num_classes", 4), **options)


def convolutional() -> FasterRCNN:
    head = FastRCNNConvFCHead((32, 7, 7), [32, 32], [48], norm_layer=nn.BatchNorm2d)
    return small(num_classes=None, box_head=head, box_predictor=FastRCNNPredictor(48, 4))


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": small,
    "FrozenBatchNorm2d": lambda: FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None), 4
    ),
    "convolutional head": convolutional,
    "RetinaNet": lambda: RetinaNet(
        mobile(), 4, anchor_generator=AnchorGenerator(((16,), (32,), (64,), (96,)), ((1.0,),) * 4)
    ),
}


def made(name: str) -> Detector:
    torch.manual_seed(0)
    module = with_statistics(DETECTORS[name]())
    module.transform.min_size, module.transform.max_size = (SIDE,), SIDE  # type: ignore[union-attr]
    return detection.wrap(module).eval()


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    return made(request.param)


def scene() -> Batch:
    images = [torch.rand(3, SIDE, SIDE), torch.rand(3, SIDE, 80)]
    truth = torch.tensor([[8.0, 8, 60, 70], [30, 20, 78, 50]])
    return Batch.of(images, [{"boxes": truth, "labels": torch.tensor([1, 3])}] * 2)


def test_a_frozen_copy_differs_by_rounding_only(detector: Detector) -> None:
    before, state = digest(detector.module), set(detector.state_dict())
    locations = detector.observe(scene()).locations
    assert locations is not None
    with torch.no_grad():
        expected, found = detector.at(locations), detector.frozen(None).at(locations)
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        torch.testing.assert_close(found[name], right, rtol=1e-4, atol=1e-4 * float(right.std()))
    assert (digest(detector.module), set(detector.state_dict())) == (before, state)


def test_no_norm_is_left(detector: Detector) -> None:
    kinds = {type(part) for part in frozen_copy(detector.module.backbone, None).modules()}
    assert not kinds & {FrozenBatchNorm2d, nn.BatchNorm2d}
    assert {type(part) for part in detector.module.backbone.modules()} & {
        FrozenBatchNorm2d,
        nn.BatchNorm2d,
    }


def test_bfloat16_changes_directions_no_more_than_autocast_does(detector: Detector) -> None:
    locations = detector.observe(scene()).locations
    assert locations is not None
    with torch.no_grad():
        expected = detector.at(locations)["penultimate"]
        with torch.autocast("cpu", torch.bfloat16):
            usual = detector.at(locations)["penultimate"]
            found = detector.frozen(torch.bfloat16).at(locations)["penultimate"]
    assert found.dtype == usual.dtype == torch.bfloat16
    turned, allowed = (1 - cosine_similarity(x.float(), expected).mean() for x in (found, usual))
    assert turned < 2 * allowed + 1e-5
    assert turned < 1e-3


def test_an_output_that_is_read_elsewhere_is_not_folded() -> None:
    body = IntermediateLayerGetter(resnet18(), {"conv1": "0", "layer1": "1"})
    kept = frozen_copy(with_statistics(body), None)
    assert isinstance(kept["bn1"], nn.BatchNorm2d)
    images = torch.rand(1, 3, 32, 32)
    for found, right in zip(kept(images).values(), body(images).values(), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_a_frozen_teacher_keeps_its_state_and_reads_where_its_weights_are() -> None:
    teacher = Teacher(made("BatchNorm2d"))
    state = set(teacher.state_dict())
    locations = teacher.observe_for_prepare(scene(), teacher.network).locations
    assert locations is not None
    right = teacher.at(locations)["penultimate"]
    teacher.freeze(torch.bfloat16)
    low = teacher.at(locations)["penultimate"]
    assert low.dtype == torch.bfloat16
    assert cosine_similarity(low.float(), right).min() > 0.99
    assert set(teacher.state_dict()) == state
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    # Code that changes weights nevertheless calls `fix` again.
    nn.init.zeros_(teacher.network.module.roi_heads.box_head.fc7.weight)  # type: ignore[union-attr]
    teacher.freeze(None)
    assert teacher.at(locations)["penultimate"].count_nonzero() < right.count_nonzero()


def test_beside_a_student_in_fp32_the_teacher_takes_the_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda *, cpu: True)
    student, teacher = made("BatchNorm2d"), made("BatchNorm2d")
    wired = wire(student, teacher, {"lshfm": {"terms": "l2"}}, task="detection")
    cpu = torch.device("cpu")
    chosen = resolve(Training(precision="fp32"), wired, cpu)
    assert (chosen.precision, chosen.teacher_precision) == ("fp32", "bf16")
    asked = resolve(Training(precision="fp32", teacher_precision="fp32"), wired, cpu)
    assert asked.teacher_precision == "fp32"
