"""RetinaNet and FCOS, unchanged and read at the patches that their class scores come from."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, RetinaNet, fcos_resnet50_fpn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from understudy.batch import Batch, Objects
from understudy.config.recipe import Recipe
from understudy.errors import NetworkError
from understudy.methods.lshfm import LSHFM
from understudy.models import detection
from understudy.models.detection._detector import inputs
from understudy.models.detection._locations import (
    balanced_mask,
    extract_patches,
    location_classes,
    published_mask,
)
from understudy.models.detection.dense import DenseDetector, DenseLocations

WIDTH = 32
CLASSES = 3


class Pyramid(nn.Module):
    """A backbone with maps of stride 8 and 16."""

    out_channels = WIDTH

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.out_channels = width
        self.stem = nn.Conv2d(3, width, 8, stride=8)
        self.next = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        first = self.stem(images).relu()
        return {"0": first, "1": self.next(first).relu()}


def anchors(*, each: int) -> AnchorGenerator:
    sizes = ((16, 20, 25), (32, 40, 51)) if each == 9 else ((8,), (16,))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0) if each == 9 else (1.0,),) * 2)


def retinanet(width: int = WIDTH) -> RetinaNet:
    return RetinaNet(
        Pyramid(width),
        CLASSES + 1,
        min_size=[64, 80, 96],
        max_size=128,
        anchor_generator=anchors(each=9),
    )


def retinanet_v2() -> RetinaNet:
    head = RetinaNetHead(WIDTH, 9, CLASSES + 1, norm_layer=lambda n: nn.GroupNorm(8, n))
    head.regression_head._loss_type = "giou"
    return RetinaNet(
        Pyramid(),
        CLASSES + 1,
        min_size=64,
        max_size=96,
        anchor_generator=anchors(each=9),
        head=head,
    )


def fcos() -> FCOS:
    return FCOS(Pyramid(), CLASSES + 1, min_size=64, max_size=96, anchor_generator=anchors(each=1))


MAKERS = pytest.mark.parametrize("make", [retinanet, retinanet_v2, fcos])


def scenes(*counts: int) -> Batch:
    """Return images of noise with the given numbers of boxes."""
    torch.manual_seed(3)
    sizes = torch.tensor([[64, 72], [56, 64], [64, 64]])[: len(counts)]
    images = torch.zeros(len(counts), 3, 64, 72)
    for place, (height, width) in zip(images, sizes, strict=True):
        place[:, :height, :width] = torch.rand(3, height, width)
    corners = [torch.rand(n, 2) * 30 for n in counts]
    boxes = tuple(torch.cat([x, x + 12 + torch.rand(len(x), 2) * 14], 1) for x in corners)
    labels = tuple(torch.arange(n) % CLASSES for n in counts)
    no = tuple(torch.zeros(n, dtype=torch.bool) for n in counts)
    areas = tuple((x[:, 2:] - x[:, :2]).prod(1) for x in boxes)
    index = torch.arange(len(counts))
    objects = Objects(sizes, boxes, labels, no, no, areas)
    return Batch(images, torch.zeros_like(index), index, torch.zeros_like(index), objects=objects)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def retrained(module: nn.Module) -> nn.Module:
    """Initialise the head so that locations differ: torchvision's weights start near zero."""
    torch.manual_seed(8)
    for name, x in module.head.classification_head.named_parameters():
        if name.endswith("weight") and x.dim() == 4:
            nn.init.kaiming_normal_(x)
    return module


@MAKERS
@pytest.mark.parametrize("counts", [(2, 1), (1, 0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("mask", ["published", "balanced"])
def test_losses_and_gradients_are_torchvisions_to_the_bit(
    make: Callable[[], nn.Module], counts: tuple[int, ...], mask: str
) -> None:
    watched, plain, batch = seeded(make), seeded(make), scenes(*counts)
    torch.manual_seed(7)
    found = DenseDetector(watched, mask=mask).train().observe(batch).losses
    torch.manual_seed(7)
    expected = plain.train()(*inputs(batch))
    assert found == {f"task/{name}": loss for name, loss in expected.items()}
    torch.stack(list(found.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for ours, theirs in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert watched.state_dict().keys() == plain.state_dict().keys()
    assert "compute_loss" not in vars(watched.head)


@pytest.mark.parametrize(
    "name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"]
)
def test_torchvisions_own_are_found_by_name(name: str) -> None:
    found = detection.find(
        f"torchvision:{name}", num_classes=2, options={"min_size": 64, "max_size": 64}
    )
    assert isinstance(found, DenseDetector)
    each = 1 if name.startswith("fcos") else 9
    rows = {name: found.shapes[name] for name in ("penultimate", "logits")}
    assert rows == {"penultimate": (2304,), "logits": (3 * each,)}
    assert (found.num_classes, found.shapes.classes) == (2, 3)
    assert not found.shapes.exclusive_classes
    assert found.classifier_weight.shape == (3 * each, 2304)
    seen = found.train().observe(scenes(1))
    assert seen.features["penultimate"].shape == (len(seen.locations), 2304)


@MAKERS
def test_rows_are_the_patches_that_give_the_logits(make: Callable[[], nn.Module]) -> None:
    student = DenseDetector(retrained(seeded(make))).train()
    seen = student.observe(scenes(2, 0, 1))
    rows, logits = seen.features["penultimate"], seen.features["logits"]
    scored = F.linear(rows, student.classifier_weight, student.classifier_bias)
    torch.testing.assert_close(scored, logits)
    assert logits.std() > 0.01
    assert len(seen.batch) == len(rows) == len(seen.locations)


@MAKERS
def test_a_teacher_reads_the_same_places_as_its_student(make: Callable[[], nn.Module]) -> None:
    student = DenseDetector(retrained(seeded(make)), mask="balanced").train()
    teacher = DenseDetector(deepcopy(student.module)).eval()
    teacher.module.transform.image_mean = [0.2, 0.3, 0.4]
    seen = student.observe(scenes(2, 1))
    again = teacher.at(seen.locations)
    assert not torch.allclose(again["penultimate"], seen.features["penultimate"])
    teacher.module.transform.image_mean = student.module.transform.image_mean
    again = teacher.at(seen.locations)
    for name, rows in seen.features.items():
        torch.testing.assert_close(again[name], rows)


@MAKERS
def test_a_teacher_computes_neither_boxes_nor_anchors(make: Callable[[], nn.Module]) -> None:
    student, teacher = (DenseDetector(seeded(make, seed)) for seed in (0, 1))
    locations = student.train().observe(scenes(2, 1)).locations
    teacher.eval()
    teacher.module.head.regression_head = teacher.module.anchor_generator = None
    assert len(teacher.at(locations)["logits"]) == len(locations)


@MAKERS
def test_evaluation_has_the_rows_of_training(
    make: Callable[[], nn.Module],
) -> None:
    network, batch = DenseDetector(retrained(seeded(make))), scenes(2, 0, 1)
    network.module.transform.min_size = (80,)
    trained, sampled = network.train().observe(batch), network.eval().observe(batch)
    assert sampled.losses == {}
    assert torch.equal(sampled.batch.labels, trained.batch.labels)
    for name, rows in trained.features.items():
        torch.testing.assert_close(sampled.features[name], rows)


def test_patches_equal_those_of_unfold() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 3, 1, 2)]
    kept = torch.rand(2, 22) < 0.5
    whole = torch.cat([F.unfold(each, 3, padding=1) for each in maps], 2).transpose(1, 2)
    assert torch.equal(extract_patches(maps, kept), whole[kept])


def test_patches_pass_the_gradient_of_unfold() -> None:
    torch.manual_seed(0)
    one = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    kept = torch.rand(2, 20) < 0.5
    extract_patches([one], kept).square().sum().backward()
    F.unfold(other, 3, padding=1).transpose(1, 2)[kept].square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_the_published_mask_drops_only_what_is_wholly_between() -> None:
    between, below = Matcher.BETWEEN_THRESHOLDS, Matcher.BELOW_LOW_THRESHOLD
    matched = torch.tensor([[[between, between], [between, below], [0, between], [below, below]]])
    assert published_mask(matched).tolist() == [[False, True, True, True]]


def test_the_balanced_mask_draws_three_of_the_background_for_each() -> None:
    matched = torch.full((2, 100, 2), Matcher.BELOW_LOW_THRESHOLD)
    matched[0, :4, 1] = 0
    matched[0, 4:50] = Matcher.BETWEEN_THRESHOLDS
    inside = torch.ones(2, 100, dtype=torch.bool)
    inside[:, 80:] = False
    torch.manual_seed(1)
    kept = balanced_mask(matched, inside)
    assert kept[0, :4].all()
    assert kept[0].sum() == 4 + 12
    assert not kept[0, 4:50].any()
    assert not kept[0, 80:].any()
    assert not kept[1].any()
    torch.manual_seed(1)
    assert torch.equal(balanced_mask(matched, inside), kept)
    assert not torch.equal(balanced_mask(matched, inside), kept)
    matched[0, :40, 1] = 0
    assert balanced_mask(matched, inside)[0].sum() == 40 + 30


def test_a_location_is_of_the_class_it_overlaps_most() -> None:
    near, exact, far = [0.0, 0, 10, 10], [0.0, 0, 8, 10], [50.0, 50, 60, 60]
    boxes = torch.tensor([near, exact])
    found = location_classes(
        torch.tensor([[0, 1], [1, 0], [-1, -2]]),
        torch.tensor([[0.0, 0, 10, 5], exact, [0.0, 0, 8, 5], near, far, far]),
        boxes,
        torch.tensor([1, 3]),
    )
    assert found.tolist() == [3, 1, 0]


@MAKERS
def test_labels_are_those_of_the_images_objects(make: Callable[[], nn.Module]) -> None:
    batch = scenes(3, 0)
    network = DenseDetector(seeded(make), mask="balanced").train()
    labels = network.observe(batch).batch.labels
    count = (labels > 0).sum()
    assert len(labels) == 4 * count > 0
    assert set(labels.tolist()) <= {0, 1, 2, 3}


def test_a_recipe_chooses_the_mask() -> None:
    sizes = {"min_size": 64, "max_size": 64}
    name = "torchvision:fcos_resnet50_fpn"
    found = detection.find(name, num_classes=2, options={"mask": "balanced", **sizes})
    assert isinstance(found, DenseDetector)
    assert found.mask == "balanced"
    with pytest.raises(NetworkError, match="is 'half'; it can be: published, balanced"):
        detection.find(name, num_classes=2, options={"mask": "half", **sizes})
    with pytest.raises(NetworkError, match="is read elsewhere"):
        detection.find(
            "torchvision:ssdlite320_mobilenet_v3_large", num_classes=2, options={"mask": "balanced"}
        )


def trained_by_hashes_alone(clip: float, steps: int) -> Iterator[tuple[float, float]]:
    """Yield total and class loss of each step, at a learning rate that is far too high.

    The class scores start as torchvision's do, behind a tower whose features have the norm of the
    teacher's, as they do in the course of training.
    """
    teacher = (
        DenseDetector(retrained(seeded(lambda: retinanet(48), 4))).eval().requires_grad_(False)
    )
    student = DenseDetector(retrained(seeded(lambda: retinanet(48), 1))).train()
    nn.init.normal_(student.module.head.classification_head.cls_logits.weight, std=0.01)
    student.module.transform.min_size = (64,)
    torch.manual_seed(5)
    hyper = {"hashes": 256, "hash_std": 0.02, "offset": "zero", "terms": "lsh", "selective": False}
    method = LSHFM(student.shapes, teacher.shapes, **hyper)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, (step + 1) / 10)
        seen = student.observe(scenes(2, 1))
        own = torch.stack(list(seen.losses.values())).sum()
        loss = own + 8 * method(seen.features, teacher.at(seen.locations), seen.batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), clip)
        optimizer.step()
        yield loss.item(), seen.losses["task/classification"].item()


def test_the_hash_loss_alone_diverges_without_a_clip() -> None:
    assert any(loss > 1e6 for loss, _ in trained_by_hashes_alone(clip=1e30, steps=40))


def test_the_hash_loss_alone_trains_with_the_clip_of_the_recipe() -> None:
    wanted = Recipe.load("voc0712/lsh/retinanet_resnet101_resnet50")
    assert wanted.training.clip is not None
    losses = list(trained_by_hashes_alone(wanted.training.clip, steps=100))
    assert max(loss for loss, _ in losses) < 1e3
    assert sum(own for _, own in losses[-20:]) < 0.5 * sum(own for _, own in losses[:20])


@MAKERS
def test_background_is_never_detected(make: Callable[[], nn.Module]) -> None:
    network = DenseDetector(retrained(seeded(make))).eval()
    network.module.score_thresh = 0.0
    (found, *_) = network.module(inputs(scenes(2))[0])
    assert (found["labels"] == 0).any()
    outputs = network.outputs(scenes(2))
    assert 0 <= outputs["classes"].min() <= outputs["classes"].max() < CLASSES
    assert {len(column) for column in outputs.values()} == {int((found["labels"] > 0).sum())}


def test_teachers_of_other_strides_are_refused() -> None:
    student, teacher = (DenseDetector(seeded(retinanet)) for _ in range(2))
    locations = student.train().observe(scenes(1)).locations
    assert isinstance(locations, DenseLocations)
    teacher.module.backbone.next.stride = (4, 4)
    with pytest.raises(NetworkError, match="strides of the student's"):
        teacher.eval().at(locations)


def test_other_scores_than_a_convolution_of_three_are_refused() -> None:
    module = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    module.head.classification_head.cls_logits = nn.Conv2d(256, 3, 1)
    with pytest.raises(NetworkError, match="patches of 3 x 3"):
        DenseDetector(module)
