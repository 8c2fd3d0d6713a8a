"""Reading speed of stored teacher outputs: 64 random rows, from a bank or from one file each.

One file per image is how torchdistill's cache works. Both are warm, in the page cache.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import clock, ours

ROWS, VIEWS, FEATURES = 64, 162, {"penultimate": 256, "logits": 100}
IMAGES, FILES, READS = 2000, 2000, 200


def measure(rounds: int) -> dict[str, Any]:
    """Return the rows per second of both, and the ratio of the bank to files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turns = clock.interleaved(
            {
                "bank": _reads(_random_rows(folder / "bank", IMAGES, VIEWS)),
                "file of each": _reads(_random_files(folder / "files"), times=2),
            },
            rounds,
        )
    speed = {
        "bank": clock.figure([ROWS * READS / t for t in turns["bank"].values()]),
        "file of each": clock.figure([ROWS * 2 / t for t in turns["file of each"].values()]),
    }
    more = clock.ratio(clock.times(READS / 2, turns["file of each"]), turns["bank"])
    return {"rows per second": speed, "bank over files": more}


def rows_per_second(folder: Path, images: int, views: int, rounds: int) -> clock.Figure:
    """Return the reading speed of a bank of that size."""
    turns = clock.interleaved({"bank": _reads(_random_rows(folder, images, views))}, rounds)
    return clock.figure([ROWS * READS / t for t in turns["bank"].values()])


def _reads(read: Callable[[], object], times: int = READS) -> Iterator[None]:
    while True:
        for _ in range(times):
            read()
        yield


def _random_rows(folder: Path, images: int, views: int) -> Callable[[], object]:
    """Return a function that reads random records of a full bank."""
    bank = ours.table(folder, images, views, FEATURES)
    every = torch.arange(images)
    for view in range(views):
        features = {name: torch.randn(images, width) for name, width in FEATURES.items()}
        bank.write(every, torch.full_like(every, view), features)
    generator = torch.Generator().manual_seed(0)

    def read() -> object:
        draw = partial(torch.randint, size=(ROWS,), generator=generator)
        return bank.read(draw(images), draw(views))

    return read


def _random_files(folder: Path) -> Callable[[], list[dict[str, Tensor]]]:
    """Return a function that loads random files of one image each."""
    folder.mkdir()
    for number in range(FILES):
        outputs = {name: torch.randn(width) for name, width in FEATURES.items()}
        torch.save(outputs, folder / f"{number}.pt")
    generator = torch.Generator().manual_seed(0)

    def read() -> list[dict[str, Tensor]]:
        drawn = torch.randint(FILES, (ROWS,), generator=generator).tolist()
        return [torch.load(folder / f"{number}.pt") for number in drawn]

    return read
