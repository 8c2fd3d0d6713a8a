"""Cost of a loss: forward, and backward to the student's feature and the loss's parameters.

    python -m benchmarks.losses [--rounds 15]

Reported as a share of one training step of resnet8x4 in fp32. A turn of a loss is eight calls in a
row; in the first of them, the caches are as cold as in training.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import clock
from benchmarks.pairs import BATCH, CLASSES, SIDE
from understudy import methods, models
from understudy.batch import Batch
from understudy.features import Features, Shapes
from understudy.training import hardware

CALLS = 8


@dataclass(frozen=True)
class Loss:
    """A method with its hyper-parameters, and the size of the features that it compares."""

    method: str
    hyper: dict[str, Any] = field(default_factory=dict)
    dim: int = 256
    batch: int = BATCH
    coded: bool = False
    """True if the teacher's hash bits come from a bank."""


def lsh(dim: int, hashes: int, *, coded: bool = True, products: str = "fp32") -> Loss:
    """Return the hash loss alone."""
    hyper = {"terms": "lsh", "hashes": hashes, "hash_std": 0.05, "products": products}
    return Loss("lshfm", hyper, dim, coded=coded)


LOSSES = {
    **{
        f"lsh {dim} x {hashes}{', stored bits' * coded}, {products}": lsh(
            dim, hashes, coded=coded, products=products
        )
        for dim, hashes in ((512, 2048), (256, 8192))
        for coded in (True, False)
        for products in ("fp32", "bf16")
    },
    "lshl2 256 x 8192, stored bits, fp32": Loss("lshfm", {"hash_std": 0.05}, coded=True),
    "l2 256": Loss("lshfm", {"terms": "l2"}),
    "pefd 256": Loss("pefd"),
    "pefd 512": Loss("pefd", dim=512),
    "nd 256": Loss("nd"),
    "nd 512": Loss("nd", dim=512),
    "kd": Loss("kd"),
}

GROWTH = {
    "dimension": {dim: lsh(dim, 2048) for dim in (64, 256, 512, 1024, 2048)},
    "hashes": {hashes: lsh(256, hashes) for hashes in (512, 2048, 8192, 32768)},
    "batch": {rows: replace(lsh(256, 2048), batch=rows) for rows in (16, 64, 256, 1024)},
}


def measure(rounds: int) -> dict[str, Any]:
    """Return the time of each loss, its share of a step, and the growth of the hash loss."""
    turns = clock.interleaved(
        {"step": _steps()} | {name: _calls(loss) for name, loss in LOSSES.items()}, rounds
    )
    return {
        "machine": hardware.describe()["machine"],
        "step ms": clock.milliseconds(turns["step"])["median"],
        "losses": {name: _cost(turns[name], turns["step"]) for name in LOSSES},
        "growth": {
            what: {str(size): _milliseconds(turn) for size, turn in _grown(losses, rounds)}
            for what, losses in GROWTH.items()
        },
    }


def _grown(losses: dict[int, Loss], rounds: int) -> Iterator[tuple[int, dict[int, float]]]:
    turns = clock.interleaved({str(n): _calls(loss) for n, loss in losses.items()}, rounds)
    return ((size, turns[str(size)]) for size in losses)


def _steps() -> Iterator[None]:
    """Run training steps of the student alone."""
    torch.manual_seed(0)
    student = models.find("resnet8x4", num_classes=CLASSES).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    images, labels = torch.rand(BATCH, 3, SIDE, SIDE), torch.randint(CLASSES, (BATCH,))
    while True:
        optimizer.zero_grad()
        F.cross_entropy(student(images), labels).backward()
        optimizer.step()
        yield


def _calls(loss: Loss) -> Iterator[None]:
    """Run a loss forward and backward, `CALLS` times per turn."""
    torch.manual_seed(0)
    shapes = Shapes("random", {"penultimate": (loss.dim,), "logits": (CLASSES,)})
    method = methods.find(loss.method)(shapes, shapes, **loss.hyper)
    # Loading counts as preparing: the measured statistics do not affect the speed.
    method.load_state_dict(method.state_dict())
    student, teacher = (_features(shapes, loss.batch) for _ in range(2))
    if loss.coded:
        teacher |= method.codes(teacher)
    labels = torch.randint(CLASSES, (loss.batch,))
    batch = Batch.of(torch.empty(loss.batch, 3, 1, 1), labels)
    leaves = [x.requires_grad_() for x in student.values()] + list(method.parameters())
    while True:
        for _ in range(CALLS):
            method(student, teacher, batch).backward()
            for leaf in leaves:
                leaf.grad = None
        yield


def _features(shapes: Shapes, rows: int) -> Features:
    return {name: torch.randn(rows, *shape) for name, shape in shapes.items()}


def _milliseconds(turn: dict[int, float]) -> clock.Figure:
    return clock.milliseconds(clock.times(1 / CALLS, turn))


def _cost(turn: dict[int, float], step: dict[int, float]) -> dict[str, float]:
    share = clock.ratio(clock.times(100 / CALLS, turn), step)
    return {
        "ms": _milliseconds(turn)["median"],
        "share %": share["median"],
        "low": share["low"],
        "high": share["high"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="counted turns of each loss")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds)
    print(f"a step of resnet8x4: {found['step ms']:.1f} ms")
    for name, cost in found["losses"].items():
        quartiles = f"{cost['low']:.3f} to {cost['high']:.3f}"
        print(f"  {name:36} {cost['ms']:8.3f} ms {cost['share %']:7.3f} %  ({quartiles})")
    print(json.dumps(found["growth"], indent=1))


if __name__ == "__main__":
    main()
