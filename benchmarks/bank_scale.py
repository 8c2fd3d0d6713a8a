"""Bytes, time and cost of banks of millions of images: measured on a few hundred, and extrapolated.

`python -m benchmarks.bank_scale` prints the tables of docs/scale.md; `--json FILE` stores figures.
The network's time is measured apart, on the machine at hand: put in the rate of your own teacher.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import timm
import torch

from understudy.bank import Contract, Shards, make_shards, open_bank
from understudy.bank.codecs import DType

BATCH = 256
TARGETS = (1_300_000, 100_000_000)
VIEWS = 10
"""Views of each image in the extrapolated banks."""
GB_MONTH, MACHINE_HOUR = 0.023, 2.0
"""Assumed prices in dollars: an object store's gigabyte and month, a machine's hour."""


@dataclass(frozen=True)
class Case:
    """A teacher's stored features."""

    name: str
    features: dict[str, tuple[int, ...]]
    dtype: DType
    top: int | None = None
    images: int = 1024
    batch: int = BATCH
    views: int = VIEWS


PYRAMID = {
    "0": (256, 200, 272),
    "1": (256, 100, 136),
    "2": (256, 50, 68),
    "3": (256, 25, 34),
    "pool": (256, 13, 17),
}
"""Maps of a Faster R-CNN for an image of 800 × 1088 pixels."""
CASES = (
    Case("ResNet-50, pooled and logits", {"penultimate": (2048,), "logits": (1000,)}, "fp16"),
    Case("ResNet-50, pooled and top 10", {"penultimate": (2048,), "logits": (1000,)}, "fp16", 10),
    Case("ViT-B/14, class token", {"cls": (768,)}, "fp16", None, 4096),
    Case("ViT-B/14, 16 × 16 patches", {"patches": (768, 16, 16)}, "fp16", None, 512),
    Case("ViT-B/14, 16 × 16 patches", {"patches": (768, 16, 16)}, "int8", None, 512),
    Case("Faster R-CNN, 800 × 1088, p2 to p6", PYRAMID, "fp16", None, 8, 4, 2),
    Case("Faster R-CNN, 800 × 1088, p2 to p6", PYRAMID, "int8", None, 8, 4, 2),
)
NETWORKS = ("resnet50", "vit_small_patch16_224")


def measure(case: Case) -> dict[str, Any]:
    """Return bytes of a record, and records a second of building and of reading, of one thread."""
    torch.manual_seed(0)
    contract = Contract(
        *("teacher", "input", "fp32", "images", "views"),
        *(case.images, 1, case.features, case.dtype, case.top, "channel"),
    )
    batch = {name: torch.randn(case.batch, *shape) for name, shape in case.features.items()}
    with tempfile.TemporaryDirectory() as place:
        bank = make_shards(place, contract, few_views=False)
        building = _seconds(lambda: build(bank, batch, case.batch))
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
        reading, order = open_bank(place, contract), torch.randperm(case.images)
        parts = torch.split(order, case.batch)
        first = _seconds(lambda: [reading.read(part, 0 * part) for part in parts])
        again = _seconds(lambda: [reading.read(part, 0 * part) for part in parts])
    return {
        "case": f"{case.name}, {case.dtype}",
        "numbers": sum(prod(shape) for shape in case.features.values()),
        "bytes": size / case.images,
        "views": case.views,
        "built_per_second": case.images / building,
        "read_per_second": case.images / min(first, again),
    }


def build(bank: Shards, batch: dict[str, torch.Tensor], size: int) -> None:
    """Publish all shards of a bank, of the same batch again and again."""
    for shard in bank.division.shards(bank.contract):
        starts = range(0, shard.images, size)
        bank.publish(
            shard,
            ({k: x[: shard.images - start] for k, x in batch.items()} for start in starts),
        )


def network_rate(name: str, images: int = 16, rounds: int = 3) -> float:
    """Return images of 224 pixels a second through a network, on one thread of the CPU."""
    network = timm.create_model(name, num_classes=0).eval()
    batch = torch.randn(images, 3, 224, 224)
    with torch.inference_mode():
        network(batch)
        return images / min(_seconds(lambda: network(batch)) for _ in range(rounds))


def _seconds(action: Callable[[], Any]) -> float:
    # Of the processor: the disk's part is the machine's, and others may work on it.
    started = time.process_time()
    action()
    return time.process_time() - started


def extrapolated(figure: dict[str, Any], images: int, rate: float) -> dict[str, float]:
    """Return size, time and cost of a bank of so many images, from measured figures.

    Args:
        figure: As `measure` returns it.
        images: Number of images.
        rate: Images a second of the teacher on one machine.
    """
    records = images * figure["views"]
    size, hours = records * figure["bytes"], records / rate / 3600
    return {
        "terabytes": size / 1e12,
        "dollars_month": size / 1e9 * GB_MONTH,
        "machine_hours": hours,
        "dollars_built": hours * MACHINE_HOUR,
        "bank_hours": records / figure["built_per_second"] / 3600,
    }


def table(figures: Sequence[dict[str, Any]], rate: float) -> str:
    """Return a Markdown table of what was measured and what follows from it."""
    lines = [
        "| stored | bytes an image and view | built/s | read/s | views | "
        + " | ".join(f"TB, {images / 1e6:g} M" for images in TARGETS)
        + " | "
        + " | ".join(f"$ a month, {images / 1e6:g} M" for images in TARGETS)
        + " |",
        "|---" * (5 + 2 * len(TARGETS)) + "|",
    ]
    for figure in figures:
        sizes = [extrapolated(figure, images, rate) for images in TARGETS]
        cells = [
            figure["case"],
            f"{figure['bytes']:,.0f}",
            f"{figure['built_per_second']:,.0f}",
            f"{figure['read_per_second']:,.0f}",
            str(figure["views"]),
            *(f"{size['terabytes']:,.3g}" for size in sizes),
            *(f"{size['dollars_month']:,.0f}" for size in sizes),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and store the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="Images a second of a teacher.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = [measure(case) for case in CASES]
    rates = {name: network_rate(name) for name in NETWORKS}
    print(table(figures, options.rate))
    for name, rate in rates.items():
        print(f"{name}: {rate:.1f} images a second on one thread of the CPU")
    for images in TARGETS:
        teacher = extrapolated(figures[0], images, options.rate)
        print(f"{images:,} images × {figures[0]['views']} at {options.rate:g}/s: {teacher}")
    if options.json:
        options.json.write_text(json.dumps({"bank": figures, "networks": rates}, indent=1))


if __name__ == "__main__":
    main()
