"""Start-up of a run on a folder of very many tiny files: time, and memory for each image.

    python -m benchmarks.large_folder FOLDER [--files 200000]

writes the files into FOLDER unless they are there, and starts two processes at once, as two ranks,
with an empty cache and then with what they have left: each builds the experiment and takes its
first batch. Memory for an image is the growth from a tenth of the files to all of them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

CLASSES = 100
_RANKS = 2


def write(folder: Path, files: int) -> None:
    """Write JPEG files of 8 to 40 pixels into classes to train on, and a few to test."""
    import numpy as np
    from PIL import Image

    contents = []
    for i in range(64):
        pixels = np.random.default_rng(i).integers(0, 256, (8 + i % 33, 40 - i % 33, 3), np.uint8)
        Image.fromarray(pixels).save(stored := BytesIO(), "JPEG")
        contents.append(stored.getvalue())
    for split, count in (("train", files), ("test", CLASSES)):
        for label in range(CLASSES):
            place = folder / split / f"class{label:03d}"
            place.mkdir(parents=True, exist_ok=True)
            for i in range(label, count, CLASSES):
                (place / f"{i:08d}.jpg").write_bytes(contents[i % 64])
    (folder / "written").touch()


def start(folder: Path, rank: int) -> None:
    """Build an experiment on the folder as one rank, take a batch, and print what it took."""
    spent = {"begun": time.perf_counter()}
    import torch  # noqa: F401

    from understudy.config.recipe import Recipe
    from understudy.experiment import build, images
    from understudy.tasks import find

    recipe = Recipe.load(
        {
            "student": "resnet8",
            "data": {"source": "folder", "root": str(folder), "size": 32, "validation": 0.0},
            "training": {"epochs": 1, "batch": 256},
        }
    )
    spent["imports"] = time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the imports is another matter
    before, cpu = _memory(), time.process_time()
    read = images.read_images(recipe, find(recipe.task, recipe.training))
    spent["images"], read_memory = time.perf_counter(), _memory()
    built = build.experiment(recipe, rank=rank, world=_RANKS, images=read)
    spent["build"] = time.perf_counter()
    next(built.train.epoch(0))
    spent["batch"] = time.perf_counter()
    times = list(spent.values())
    steps = zip(list(spent)[1:], times[:-1], times[1:], strict=True)
    print(
        json.dumps(
            {
                "seconds": {name: round(end - begin, 2) for name, begin, end in steps},
                "cpu": round(time.process_time() - cpu, 2),
                "read bytes": read_memory - before,
                "all bytes": _memory() - before,
                "peak bytes": _status("VmHWM") - before,
            }
        )
    )


def _memory() -> int:
    """Return the memory of this process in bytes, mapped files included."""
    return _status("VmRSS")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def measured(folder: Path, cache: Path) -> list[dict[str, object]]:
    """Start all ranks at once, and return what each of them printed."""
    words = [sys.executable, "-m", "benchmarks.large_folder", str(folder), "--rank"]
    environment = {**os.environ, "UNDERSTUDY_CACHE": str(cache)}
    ranks = [
        subprocess.Popen([*words, str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(_RANKS)
    ]
    return [json.loads(rank.communicate()[0].splitlines()[-1]) for rank in ranks]


def main() -> None:
    """Write the files, and measure a tenth of them and all, cold and warm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--rank", type=int)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        start(arguments.folder, arguments.rank)
        return
    counts = (arguments.files // 10, arguments.files)
    peaks = dict[tuple[str, int], list[int]]()
    for count in counts:
        folder = arguments.folder / str(count)
        if not (folder / "written").exists():
            write(folder, count)
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        for name in ("cold", "warm"):
            results = measured(folder, cache)
            peaks[name, count] = [int(str(result["peak bytes"])) for result in results]
            for rank, result in enumerate(results):
                print(f"{count:,} files, {name}, rank {rank}: {json.dumps(result)}")
    for name in ("cold", "warm"):
        pairs = zip(peaks[name, counts[1]], peaks[name, counts[0]], strict=True)
        each = [(many - few) / (counts[1] - counts[0]) for many, few in pairs]
        print(f"{name}: {max(each):.0f} bytes an image at the peak of the greediest rank")


if __name__ == "__main__":
    main()
