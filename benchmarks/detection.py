"""Time that a teacher adds to a detector's step: Faster R-CNN, ResNet-101 teaching ResNet-50.

Two images of 320 x 320 pixels and 512 sampled proposals in each, as published. `alone` is a step of
torchvision's own detector with the same optimizer, without Understudy; the others are steps of a
distiller, with the teacher in some precision. `added` is the time of such a step beyond `alone`, in
percent of it. `parts` splits it into the parts of the teacher's pass and the rest.

Both networks are untrained. Their normalisation layers hold the statistics of random images, so
that maps keep the magnitude that they have in training; nothing else affects the speed. As in the
published recipes, these layers are frozen, as are the student's stem and first stage.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from benchmarks import clock
from understudy import wire
from understudy.batch import Batch
from understudy.config import recipe
from understudy.distillation.distiller import Distiller
from understudy.models.detection._frozen import frozen_copy
from understudy.models.detection.faster_rcnn import FasterRCNNDetector, Proposals
from understudy.training.devices import resolve

STUDENT, TEACHER = "resnet50", "resnet101"
IMAGES, SIDE, CLASSES = 2, 320, 21
PROPOSALS = 512
"""Maximum number of proposals that a student samples per image."""
METHODS: dict[str, dict[str, Any]] = {
    "l2": {"lshfm": {"terms": "l2", "weight": 7}},
    "lshl2": {"lshfm": {"hashes": 4096, "hash_std": 0.05, "weight": 7}},
}
"""As published for detection; l2 is the cost of the teacher alone, plus a squared error."""

Precision = Literal["fp32", "bf16", "auto"]


def measure(rounds: int) -> dict[str, Any]:
    """Return the added time by precision, its parts, and the error of bf16 in the rows."""
    student, teacher = detector(STUDENT), detector(TEACHER).eval()
    rounds = max(1, rounds // 2)  # A step takes seconds.
    return {
        "added %": {how: _added(student, teacher, how, rounds) for how in ("fp32", "bf16")},
        "parts": _parts(student, teacher, rounds),
        "rows in bf16": _turned(student, teacher),
    }


def detector(backbone: str, *, trainable_layers: int = 3) -> FasterRCNN:
    """Return an untrained Faster R-CNN, as torchvision builds it over a pretrained backbone."""
    torch.manual_seed(0)

    def pyramid(norm: Callable[..., nn.Module]) -> nn.Module:
        return resnet_fpn_backbone(
            backbone_name=backbone, weights=None, norm_layer=norm, trainable_layers=trainable_layers
        )

    # Momentum 1: the statistics are those of the last batch alone.
    measured = pyramid(lambda width: nn.BatchNorm2d(width, momentum=1.0)).train()
    with torch.no_grad():
        measured(torch.randn(IMAGES, 3, SIDE, SIDE))
    backbone_fpn = pyramid(FrozenBatchNorm2d)
    backbone_fpn.load_state_dict(
        {k: v for k, v in measured.state_dict().items() if not k.endswith("num_batches_tracked")}
    )
    sides = {"min_size": SIDE, "max_size": SIDE}
    return FasterRCNN(backbone_fpn, CLASSES, box_batch_size_per_image=PROPOSALS, **sides)


def scene() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return images of noise with some objects of all sizes, in torchvision's format."""
    boxes = [[10, 10, 200, 220], [50, 60, 100, 120], [150, 100, 310, 300], [20, 250, 60, 290]]
    truth = {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.arange(1, 5)}
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, SIDE, SIDE, generator=generator) for _ in range(IMAGES)], [truth] * IMAGES


# ---- steps ---------------------------------------------------------------------------------------


def _added(student: FasterRCNN, teacher: FasterRCNN, how: str, rounds: int) -> dict[str, Any]:
    """Time steps without and with a teacher in turn, the student in one precision."""
    wanted: dict[str, tuple[dict[str, Any], Precision]] = {
        "l2": (METHODS["l2"], "auto"),
        "lshl2": (METHODS["lshl2"], "auto"),
        "l2, teacher in fp32": (METHODS["l2"], "fp32"),
    }
    low = how == "bf16"
    distillers = {
        name: distiller(student, teacher, methods, precision)
        for name, (methods, precision) in wanted.items()
    }
    layout = torch.channels_last
    variants = {"alone": _alone(deepcopy(student).to(memory_format=layout), low=low)}
    variants |= {name: _distilled(made, low=low) for name, made in distillers.items()}
    turns = clock.interleaved(variants, rounds, seldom=("l2, teacher in fp32",))
    more = {
        name: clock.figure([100 * (turns[name][n] / turns["alone"][n] - 1) for n in turns[name]])
        for name in wanted
    }
    return more | {"ms": {name: clock.milliseconds(turn) for name, turn in turns.items()}}


def distiller(
    student: FasterRCNN, teacher: FasterRCNN, methods: dict[str, Any], precision: Precision
) -> Distiller:
    """Return copies of both networks, wired and placed as in a run on the CPU."""
    made = wire(deepcopy(student), deepcopy(teacher), methods, task="detection")
    for method in made.trainable.methods.values():
        # Loading counts as preparing: the measured statistics do not affect the speed.
        method.load_state_dict(method.state_dict())
    training = recipe.Training(precision="fp32", teacher_precision=precision)
    resolve(training, made, torch.device("cpu")).apply(made)
    return made.train()


def _alone(student: FasterRCNN, *, low: bool) -> Iterator[None]:
    images, targets = scene()
    return _steps(student.train(), lambda: sum(student(images, targets).values()), low=low)


def _distilled(made: Distiller, *, low: bool) -> Iterator[None]:
    batch = Batch.of(*scene())
    return _steps(made.trainable, lambda: made.total(made(batch)), low=low)


def _steps(trained: nn.Module, loss: Callable[[], Any], *, low: bool) -> Iterator[None]:
    parameters = [p for p in trained.parameters() if p.requires_grad]
    # Tiny: an untrained detector diverges at usual rates.
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=1e-4, fused=True)
    while True:
        torch.manual_seed(0)  # For the sampling of proposals.
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = loss()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


# ---- parts ---------------------------------------------------------------------------------------


def _parts(student: FasterRCNN, teacher: FasterRCNN, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of the parts that distillation adds to the student's step."""
    wrapped, low = FasterRCNNDetector(deepcopy(student)).train(), _precision(student, teacher)
    settled = frozen_copy(FasterRCNNDetector(teacher.to(memory_format=torch.channels_last)), low)
    proposals = _proposals(wrapped)
    images, boxes, sizes = proposals.images.tensors, proposals.boxes, proposals.images.sizes
    backbone, heads = settled.module.backbone, settled.module.roi_heads
    with torch.no_grad(), _autocast(low):
        stages = backbone.body(images)
        maps = backbone.fpn(stages)
        pooled = heads.box_roi_pool(maps, boxes, sizes)
    calls: dict[str, Callable[[], object]] = {
        "teacher": lambda: settled.at(proposals),
        "ResNet": lambda: backbone.body(images),
        "pyramid": lambda: backbone.fpn(stages),
        "pooling": lambda: heads.box_roi_pool(maps, boxes, sizes),
        "box head": lambda: heads.box_head(pooled),
        "labels of the rows": lambda: wrapped._labels(boxes, scene()[1]),
    }
    variants = {name: _reads(call, low) for name, call in calls.items()}
    variants |= {f"loss {name}": _loss(wrapped, given) for name, given in METHODS.items()}
    turns = clock.interleaved(variants, rounds)
    milliseconds = {name: clock.milliseconds(turn) for name, turn in turns.items()}
    return {"precision": str(low), "proposals": len(proposals), "ms": milliseconds}


def _precision(student: FasterRCNN, teacher: FasterRCNN) -> torch.dtype | None:
    """Return the teacher's precision that a run chooses on this machine."""
    made = distiller(student, teacher, {"lshfm": {"terms": "l2"}}, "auto").teacher
    assert made is not None
    return made.precision


def _autocast(precision: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cpu", precision, enabled=precision is not None)


def _proposals(wrapped: FasterRCNNDetector) -> Proposals:
    """Return the proposals that the student samples."""
    torch.manual_seed(0)
    sampled = wrapped.observe(Batch.of(*scene())).locations
    assert isinstance(sampled, Proposals)
    return Proposals(sampled.images, [each.detach() for each in sampled.boxes])


def _reads(call: Callable[[], object], precision: torch.dtype | None) -> Iterator[None]:
    while True:
        with torch.no_grad(), _autocast(precision):
            call()
        yield


def _loss(wrapped: FasterRCNNDetector, given: dict[str, Any]) -> Iterator[None]:
    """Run a method forward, and backward to the student's rows."""
    rows = IMAGES * PROPOSALS
    made = wire(wrapped.module, deepcopy(wrapped.module), given, task="detection")
    (method,) = made.trainable.methods.values()
    method.load_state_dict(method.state_dict())
    teacher = {"penultimate": torch.rand(rows, 1024), "logits": torch.rand(rows, CLASSES)}
    student = {name: x.clone().requires_grad_() for name, x in teacher.items()}
    batch = Batch.of(torch.empty(rows, 3, 0, 0), torch.zeros(rows, dtype=torch.long))
    while True:
        method(student, teacher, batch).backward()
        yield


def _turned(student: FasterRCNN, teacher: FasterRCNN) -> dict[str, float]:
    """Cosine of the teacher's rows in bf16 with those in fp32, at the student's proposals."""
    wrapped, reads = FasterRCNNDetector(deepcopy(student)).train(), FasterRCNNDetector(teacher)
    proposals = _proposals(wrapped)
    with torch.no_grad():
        right = reads.at(proposals)["penultimate"]
        with _autocast(torch.bfloat16):
            found = frozen_copy(reads, torch.bfloat16).at(proposals)["penultimate"]
            usual = reads.at(proposals)["penultimate"]
    cosines = cosine_similarity(found.float(), right)
    return {
        "mean cosine": round(float(cosines.mean()), 6),
        "smallest cosine": round(float(cosines.min()), 6),
        "mean cosine, plain autocast": round(
            float(cosine_similarity(usual.float(), right).mean()), 6
        ),
    }
