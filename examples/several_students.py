"""Train several students with one teacher, which runs only once per batch.

Students and methods may differ, and each student has its own optimizer. The script takes a few
images and trains the teacher briefly, so that it ends within seconds; use your own instead.

    python examples/several_students.py
"""

import torch
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import mobilenet_v3_small, resnet18, shufflenet_v2_x0_5

import understudy
from understudy.data.sources import fashion

torch.manual_seed(0)
source = fashion.load("", "train")
data = TensorDataset(source.pixels[:192, :, ::2, ::2] / 255, source.labels[:192])
loader = DataLoader(data, batch_size=64, shuffle=True)

network = resnet18(num_classes=10)
optimizer = AdamW(network.parameters(), lr=1e-3)
for images, labels in [batch for _ in range(4) for batch in loader]:
    optimizer.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()

teacher = understudy.Network(network, input=understudy.Input(size=images.shape[-1]))
small, smaller = mobilenet_v3_small(num_classes=10), shufflenet_v2_x0_5(num_classes=10)
distillers = {
    "mobilenet": understudy.wire(small, teacher, {"pefd": 25}, example=images),
    "shufflenet": understudy.wire(smaller, teacher, {"lshfm": 6, "kd": 1}, example=images),
}
shared = understudy.Shared(distillers["mobilenet"].teacher)
optimizers = {}
for name, distiller in distillers.items():
    distiller.prepare(loader)
    distiller.replay = shared
    optimizers[name] = AdamW(distiller.trainable.parameters(), lr=1e-3)

for epoch in range(1, 4):
    for images, labels in loader:
        totals = {}
        for name, distiller in distillers.items():
            optimizers[name].zero_grad()
            totals[name] = distiller.total(distiller(images, labels))
            totals[name].backward()
            optimizers[name].step()
    print(f"epoch {epoch}", *(f" {name} {total:.4f}" for name, total in totals.items()))
