"""Cost of loading and augmenting an image: Understudy against PIL and torchvision.

    python -m benchmarks.input [--rounds 15]

Small images have CIFAR's size and are cropped and mirrored in memory; large ones are JPEG files of
500 × 375 pixels, of which a random part is resized to 224 and mirrored. Every variant produces a
normalised batch of floats. PIL and torchvision process single images, as in a torchvision dataset
in a DataLoader worker; ours are `MemoryViews`, and `FileViews` over images stored decoded, with the
normalisation of a `Network`. Variants take turns in one process, with one thread.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from benchmarks.clock import interleaved, milliseconds, ratio
from understudy.data import DecodedSource, FileSource, FileViews, MemoryViews, Views
from understudy.training import hardware

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL_BATCH, SMALL_TURN, SMALL_IMAGES = 64, 32 * 64, 20_000
LARGE_BATCH, LARGE_TURN = 32, 32
QUALITY = 95
"""JPEG quality: files of 144 KB, as usual for photographs of that size."""


def measure(rounds: int) -> dict[str, Any]:
    """Return the microseconds per image of every variant, and their ratio to ours."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return {
            "CIFAR, crop and mirror": _measured(_small(), rounds, SMALL_TURN),
            "JPEG 500 × 375, resized crop to 224": _measured(
                _large(Path(folder)), rounds, LARGE_TURN
            ),
        }


def _measured(variants: dict[str, Iterator[object]], rounds: int, images: int) -> dict[str, Any]:
    times = interleaved(variants, rounds)
    per_image = {
        name: {n: 1e3 * t / images for n, t in turns.items()} for name, turns in times.items()
    }
    return {
        name: {"us": milliseconds(turns), "ratio": ratio(turns, per_image["ours"])}
        for name, turns in per_image.items()
    }


def _small() -> dict[str, Iterator[object]]:
    """Return variants that make 32 batches of 64 small images per turn."""
    arrays = np.random.default_rng(0).integers(0, 256, (SMALL_IMAGES, 32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()
    crop = {"size": 32, "padding": 4}
    by_pil = v1.Compose([v1.RandomCrop(**crop), v1.RandomHorizontalFlip(), *_PIL_FLOATS])
    by_v2 = v2.Compose([v2.RandomCrop(**crop), v2.RandomHorizontalFlip(), *_V2_FLOATS])
    views = MemoryViews(pixels, augment="crop_flip", size=32, seed=0)
    form = (SMALL_IMAGES, SMALL_TURN, SMALL_BATCH)
    return {
        "PIL": _one_by_one(lambda i: by_pil(Image.fromarray(arrays[i])), *form),
        "torchvision v2": _one_by_one(lambda i: by_v2(pixels[i]), *form),
        "ours": _batched(views, *form),
    }


def _large(folder: Path) -> dict[str, Iterator[object]]:
    """Return variants that make one batch of 32 large images per turn."""
    paths = [_photo(folder / f"{i}.jpg", seed=i) for i in range(2 * LARGE_TURN)]
    source = FileSource(paths, torch.zeros(len(paths), dtype=torch.int64), (), root=folder)
    crop, mirror = v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()
    by_pil = v1.Compose([v1.RandomResizedCrop(224), v1.RandomHorizontalFlip(), *_PIL_FLOATS])
    by_v2 = v2.Compose([v2.PILToTensor(), crop, mirror, *_V2_FLOATS])
    options: dict[str, Any] = {"augment": "resized_crop", "size": 224, "seed": 0}
    kept = DecodedSource(source, folder / "decoded")
    for i in range(len(kept)):
        kept.image(i)
    form = (len(paths), LARGE_TURN, LARGE_BATCH)
    return {
        "PIL": _one_by_one(lambda i: by_pil(Image.open(paths[i]).convert("RGB")), *form),
        "torchvision v2": _one_by_one(lambda i: by_v2(Image.open(paths[i]).convert("RGB")), *form),
        "ours, decoding": _batched(FileViews(source, **options), *form),
        "ours": _batched(FileViews(kept, **options), *form),
        "ours, channels last": _batched(FileViews(kept, **options, channels_last=True), *form),
    }


_PIL_FLOATS = (v1.ToTensor(), v1.Normalize(MEAN, STD))
_V2_FLOATS = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))


def _one_by_one(
    show: Callable[[int], Tensor], images: int, turn: int, batch: int
) -> Iterator[object]:
    """Make the batches of each turn from single images."""
    for index in _orders(images, turn):
        for rows in index.split(batch):
            torch.stack([show(i) for i in rows.tolist()])
        yield None


def _batched(views: Views, images: int, turn: int, batch: int) -> Iterator[object]:
    """Make batches as a `Loader` does, normalised as in a `Network`."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for number, index in enumerate(_orders(images, turn)):
        numbers = views.number(index, torch.full_like(index, number))
        for rows in zip(index.split(batch), numbers.split(batch), strict=True):
            (views.show(*rows) - mean).div_(std)
        yield None


def _orders(images: int, turn: int) -> Iterator[Tensor]:
    """Yield the indices of the images of each turn."""
    for number in count():
        yield torch.randperm(images, generator=torch.Generator().manual_seed(number))[:turn]


def _photo(path: Path, *, seed: int) -> Path:
    """Write a smooth image with some noise, which compresses like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int64)
    noisy = smooth + rng.integers(-18, 19, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return path


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="counted turns of each variant")
    found = measure(parser.parse_args().rounds)
    print(hardware.describe()["machine"])
    for name, variants in found.items():
        print(name)
        for variant, figures in variants.items():
            times = figures["ratio"]
            print(
                f"  {variant:20} {figures['us']['median']:8.1f} us   {times['median']:6.2f} × ours "
                f"({times['low']:.2f} to {times['high']:.2f})"
            )


if __name__ == "__main__":
    main()
