"""Add feature mimicking to a PyTorch training loop, in five lines.

Both networks are plain modules; Understudy finds their features. The script takes a few images and
trains the teacher briefly, so that it ends within seconds; use your own images and teacher instead.

    python examples/own_loop.py
"""

import torch
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18, shufflenet_v2_x0_5

import understudy
from understudy.data.sources import fashion

torch.manual_seed(0)
source = fashion.load("", "train")
data = TensorDataset(source.pixels[:384, :, ::2, ::2] / 255, source.labels[:384])
loader = DataLoader(data, batch_size=64, shuffle=True)

teacher = resnet18(num_classes=10)
optimizer = AdamW(teacher.parameters(), lr=1e-3)
for images, labels in [batch for _ in range(3) for batch in loader]:
    optimizer.zero_grad()
    F.cross_entropy(teacher(images), labels).backward()
    optimizer.step()

student = shufflenet_v2_x0_5(num_classes=10)
distiller = understudy.wire(student, teacher, {"lshfm": 6, "kd": 1}, example=images)
distiller.prepare(loader)
optimizer = AdamW(distiller.trainable.parameters(), lr=1e-3)
for epoch in range(1, 5):
    for images, labels in loader:
        optimizer.zero_grad()
        losses = distiller(images, labels)
        total = distiller.total(losses)
        total.backward()
        optimizer.step()
    print(f"epoch {epoch}  total {total:.4f}", *(f"{k} {x:.4f}" for k, x in losses.items()))

trained = distiller.student.plain()  # a plain module, without Understudy
print(f"student: {sum(p.numel() for p in trained.parameters()):,} parameters")
