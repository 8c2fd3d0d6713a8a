"""Growth of time and memory with batch size, feature dimension, hashes, views and students.

The networks are small, so that the other costs are visible. `draw` makes one figure of it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import clock, ours, reading
from benchmarks.pairs import BATCH, SMALL, Pair, write_images
from understudy.distillation.shared_teacher import Shared
from understudy.training.hardware import PeakMemory

BATCHES = (16, 32, 64, 128, 256)
DIMENSIONS = (64, 256, 1024, 2048)
HASHES = (512, 2048, 8192, 32768)
VIEWS = (1, 8, 32, 162)
STUDENTS = (1, 2, 4, 8)
IMAGES = 1000
MAX_ROUNDS = 5
"""Maximum number of rounds: curves need less precision than ratios."""
_WIDE = Pair("resnet8", "resnet8x4")
"""The teacher can have any width, and never runs."""


def measure(rounds: int) -> dict[str, Any]:
    """Return the measured figures by quantity and value."""
    rounds = min(rounds, MAX_ROUNDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = (rounds + clock.WARM_UP) * max(BATCHES) // BATCH
        write_images(folder / "images", steps)
        return {
            "batch": _batches(folder, rounds),
            "dimension": _lshfm(folder, rounds, [(dim, 2048) for dim in DIMENSIONS]),
            "hashes": _lshfm(folder, rounds, [(256, hashes) for hashes in HASHES]),
            "views": _views(folder, rounds),
            "students": _students(folder, rounds),
        }


def _batches(folder: Path, rounds: int) -> dict[str, Any]:
    """Return time, ratio to the student alone, and memory of a step with a bank."""
    found = {}
    for batch in BATCHES:
        recipes = {
            "alone": ours.recipe(folder, SMALL, {}, batch=batch),
            "bank": ours.recipe(folder, SMALL, {"kd": {}}, bank=f"batch{batch}", batch=batch),
        }
        variants = {name: ours.trainer(folder, given).steps() for name, given in recipes.items()}
        peak = PeakMemory(torch.device("cpu"))
        turns = clock.interleaved(variants, rounds)
        found[str(batch)] = {
            "ms": clock.milliseconds(turns["bank"]),
            "ratio": clock.ratio(turns["bank"], turns["alone"]),
            "memory mb": peak.mb,
        }
    return found


def _lshfm(folder: Path, rounds: int, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return the time of a step with lshfm, with stored codes, and its ratio to kd."""
    variants = {}
    for dim, hashes in sizes:
        for what, given in (("lshfm", {"lshfm": {"hashes": hashes}}), ("kd", {"kd": {}})):
            wanted = ours.recipe(
                folder, _WIDE, given, bank=f"wide{dim}", options={"widths": [8, 8, 16, dim]}
            )
            variants[f"{what} {dim} {hashes}"] = ours.trainer(folder, wanted).steps()
    turns = clock.interleaved(variants, rounds)
    varied = 0 if sizes[0][0] != sizes[-1][0] else 1
    return {
        str(size[varied]): {
            "ms": clock.milliseconds(turns["lshfm {} {}".format(*size)]),
            "ratio": clock.ratio(
                turns["lshfm {} {}".format(*size)], turns["kd {} {}".format(*size)]
            ),
        }
        for size in sizes
    }


def _views(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the reading speed and the size of a bank, by views per image."""
    found = {}
    for views in VIEWS:
        path = folder / f"views{views}"
        speed = reading.rows_per_second(path, IMAGES, views, rounds)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        found[str(views)] = {"rows per second": speed, "mb": round(size / 1e6, 1)}
    return found


def _students(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the time of students that share a live teacher, and its ratio to one student."""
    variants = {}
    for students in STUDENTS:
        made = [
            ours.trainer(folder, ours.recipe(folder, SMALL, {"kd": {}})) for _ in range(students)
        ]
        teacher = made[0].distiller.teacher
        assert teacher is not None
        shared = Shared(teacher)
        for trainer in made:
            trainer.distiller.replay = shared
        variants[str(students)] = zip(*(trainer.steps() for trainer in made), strict=True)
    turns = clock.interleaved(variants, rounds)
    return {
        students: {
            "ms": clock.milliseconds(turns[students]),
            "ratio": clock.ratio(turns[students], turns["1"]),
        }
        for students in variants
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw one panel per quantity as an SVG file."""
    from matplotlib.figure import Figure

    panels = {
        "batch": ("ms", "batch size", "ms per step"),
        "dimension": ("ms", "feature dimension", "ms per step, lshfm"),
        "hashes": ("ms", "hashes", "ms per step, lshfm"),
        "views": ("rows per second", "views per image", "rows read per second"),
        "students": ("ratio", "students with one live teacher", "time, steps of one student"),
    }
    figure = Figure(figsize=(15, 3), layout="constrained")
    for axes, (name, (key, across, up)) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        values = [int(value) for value in found[name]]
        figures = [found[name][str(value)][key] for value in values]
        axes.fill_between(
            values, [f["low"] for f in figures], [f["high"] for f in figures], alpha=0.3
        )
        axes.plot(values, [f["median"] for f in figures], marker="o")
        axes.set(xscale="log", xlabel=across, ylabel=up, ylim=(0, None))
        axes.set_xticks(values, map(str, values), minor=False)
        axes.minorticks_off()
    figure.savefig(path, metadata={"Date": None})
