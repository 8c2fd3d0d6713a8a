"""Add feature mimicking to the training loop of a torchvision detector.

Only the lines marked with `# +` are added or changed. The script takes a few synthetic images and
trains the teacher briefly, so that it ends within a minute; use your own instead.

    python examples/detector.py
"""

import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

import understudy
from understudy.data.sources import drawn_shapes


def detector(backbone: torch.nn.Module, channels: int) -> FasterRCNN:
    """Return a small Faster R-CNN on one map of stride 16, with anchors of three sizes."""
    backbone.out_channels = channels
    boxes = AnchorGenerator(((16, 28, 40),), ((1.0,),))
    limits = {f"rpn_post_nms_top_n_{when}": 40 for when in ("train", "test")}
    limits["box_batch_size_per_image"] = 16
    return FasterRCNN(backbone, 7, rpn_anchor_generator=boxes, min_size=96, max_size=96, **limits)


class Drawn(torch.utils.data.Dataset):
    """Images and targets for torchvision's detectors, which count labels from 1."""

    source = drawn_shapes.load("24", "train")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target = self.source.target(i)
        boxes = target["boxes"].as_subclass(torch.Tensor)
        return self.source.image(i) / 255, {"boxes": boxes, "labels": target["labels"] + 1}


torch.manual_seed(0)
loader = DataLoader(
    Drawn(), 8, shuffle=True, collate_fn=lambda rows: tuple(zip(*rows, strict=True))
)
teacher = detector(torch.nn.Sequential(*[*resnet18().children()][:-3]), 256)
student = detector(mobilenet_v2(width_mult=0.5).features[:14], 48)

optimizer = AdamW(teacher.parameters(), lr=1e-3)
for images, targets in [batch for _ in range(3) for batch in loader]:
    optimizer.zero_grad()
    sum(teacher(images, targets).values()).backward()
    optimizer.step()

distiller = understudy.wire(student, teacher, {"lshfm": 7, "kd": 1}, task="detection")  # +
distiller.prepare(loader)  # +
optimizer = AdamW(distiller.trainable.parameters(), lr=1e-3)  # + instead of the student's own
for epoch in range(1, 4):
    for images, targets in loader:
        optimizer.zero_grad()
        losses = distiller(images, targets)  # + instead of student(images, targets)
        total = distiller.total(losses)  # + instead of their sum
        total.backward()
        optimizer.step()
    print(f"epoch {epoch}  total {total:.4f}", *(f"{k} {x:.4f}" for k, x in losses.items()))

student.eval()  # a plain torchvision detector, without Understudy
print(f"student: {type(student).__name__}, {len(student(images))} images processed")
