"""Time of reading a bank in shards from a folder, `memory://` and an S3 server on this machine.

    python -m benchmarks.bank_fetch [--images 8192] [--json FILE]

Each bank is read once by a process whose cache is empty, and once more from the cache. Times are of
the clock, and of the processor of the process that reads; the S3 server (moto) is another process.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import torch

from benchmarks import bank_scale
from understudy.bank import BATCH, Contract, make_shards, open_bank

FEATURES: dict[str, tuple[int, ...]] = {"penultimate": (2048,), "logits": (1000,)}
"""Pooled features and logits of a ResNet-50, in fp16: 6,100 bytes for an image."""
SHARD_IMAGES = 2048


def _contract(images: int) -> Contract:
    return Contract("t", "i", "fp32", "x", "v", images, 1, FEATURES, "fp16")


def build(place: str, images: int) -> None:
    """Fill a bank with random features."""
    bank = make_shards(place, _contract(images), few_views=False, images=SHARD_IMAGES)
    batch = {name: torch.randn(BATCH, *shape) for name, shape in FEATURES.items()}
    bank_scale.build(bank, batch, BATCH)


def read(place: str, images: int) -> tuple[float, float]:
    """Read every record once, in random order within each shard; return seconds of both clocks."""
    bank = open_bank(place, _contract(images))
    wall, processor = time.perf_counter(), time.process_time()
    for start in range(0, images, SHARD_IMAGES):
        order = start + torch.randperm(min(SHARD_IMAGES, images - start))
        for index in torch.split(order, BATCH):
            bank.read(index, torch.zeros_like(index))
    return time.perf_counter() - wall, time.process_time() - processor


def measure(name: str, place: str, images: int) -> dict[str, Any]:
    """Return rates of a bank that is read for the first time, and again."""
    build(place, images)
    size = _contract(images).bytes / 1e6
    row: dict[str, Any] = {"place": name, "megabytes": size}
    for when in ("first", "again"):
        wall, processor = read(place, images)
        row[when] = {
            "megabytes_per_second": size / wall,
            "images_per_second": images / wall,
            "megabytes_per_processor_second": size / processor,
        }
    return row


@contextmanager
def s3_server() -> Iterator[None]:
    """Start an S3 server in a process of its own, with a bucket."""
    port = 5000 + os.getpid() % 20000
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "a",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for attempt in range(600):
            try:
                fsspec.filesystem("s3").mkdir("bucket")
                break
            except Exception:
                if attempt == 599:
                    raise
                time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and store the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        os.environ["UNDERSTUDY_CACHE"] = f"{folder}/cache"
        rows = [
            measure("folder", f"{folder}/bank", options.images),
            measure("memory://", "memory://bank", options.images),
        ]
        with s3_server():
            rows.append(measure("s3://, moto", "s3://bucket/bank", options.images))
    print("| place | MB/s first | images/s first | MB/s again | images/s again | MB/CPU s first |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        first, again = row["first"], row["again"]
        print(
            f"| {row['place']} | {first['megabytes_per_second']:,.0f} | "
            f"{first['images_per_second']:,.0f} | {again['megabytes_per_second']:,.0f} | "
            f"{again['images_per_second']:,.0f} | {first['megabytes_per_processor_second']:,.0f} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
