"""What distilling costs beside plain training: ratios of medians, interleaved in one process.

    make bench                          # or: python benchmarks/steps.py [PAIR ...] [--rounds 15]

Every variant takes one optimizer step in turn, round after round, and its time is the processor
time of this process with one thread, so that neighbours on the machine change little. Weights and
pixels are random: speed does not depend on them. Writes `results/bench_steps.json`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import torch
from accelerate import Accelerator

from understudy import machine, models, tasks, wiring
from understudy.bank import Bank, Contract
from understudy.data import Loader, MemoryViews
from understudy.engine import Trainer
from understudy.recipe import Recipe, Training
from understudy.replay import Replay

PAIRS = {
    "resnet32x4 → resnet8x4": ("resnet32x4", "resnet8x4"),
    "wrn_40_2 → wrn_16_2": ("wrn_40_2", "wrn_16_2"),
    "resnet50 → mobilenetv2": ("resnet50", "mobilenetv2"),
}
METHODS = ("lshfm", "pefd", "nd", "kd")
BATCH, IMAGES = 64, 64 * 32


def trainer(student: str, teacher: str, methods: dict, bank: Path | None) -> Trainer:
    """A student in training, from a live teacher, a bank, or without either."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    views = MemoryViews(pixels, augment="none", size=32, seed=0)
    labels = torch.randint(100, (IMAGES,))
    ours = models.find(student, num_classes=100)
    theirs = models.find(teacher, num_classes=100) if methods else None
    wired = wiring.distiller(Recipe(methods=methods), ours, theirs, tasks.find("classification"))
    loader = Loader(views, labels, batch=BATCH, seed=0, shuffle=True)
    if bank is not None and wired.teacher is not None:
        shapes = wired.teacher.network.shapes
        features = {name: shapes[name] for name in ("penultimate", "logits")}
        contract = Contract(teacher, "", "fp32", "", "", IMAGES, 1, features)
        wired.replay = Replay(wired.teacher, Bank(bank, contract), views)
        for batch in loader.once(augmented=False):
            wired.observe(batch)
    wired.measure(lambda augmented: loader.once(augmented=augmented), num_images=IMAGES)
    training = Training(epochs=1, batch=BATCH)
    return Trainer(wired, loader, training, seed=0, accelerator=Accelerator(cpu=True))


def interleaved(variants: dict[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step, the variants in turn; the first two rounds are not counted."""
    steps = {name: made.steps() for name, made in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, turn in steps.items():
            started = time.process_time()
            next(turn)
            if number >= 2:
                times[name].append(time.process_time() - started)
    return times


def pair(teacher: str, student: str, rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of a step, and its ratio to the student's own, for every variant."""
    variants = {"student alone": trainer(student, teacher, {}, None)}
    for name in METHODS:
        variants[f"{name}, bank"] = trainer(student, teacher, {name: {}}, folder / student)
    variants["kd, online"] = trainer(student, teacher, {"kd": {}}, None)
    times = interleaved(variants, rounds)
    alone = median(times["student alone"])
    return {name: _figures(t, alone) for name, t in times.items()}


def _figures(times: list[float], alone: float) -> dict[str, float]:
    low, middle, high = quantiles(times, n=4)
    return {
        "ms": round(1e3 * middle, 2),
        "low ms": round(1e3 * low, 2),
        "high ms": round(1e3 * high, 2),
        "ratio": round(middle / alone, 3),
    }


def main() -> None:
    """Measure the pairs named, print their ratios, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", default=list(PAIRS), help="default: all pairs")
    parser.add_argument("--rounds", type=int, default=15, help="counted steps of each variant")
    parser.add_argument("--out", type=Path, default=Path("results/bench_steps.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"machine": machine.describe()["machine"], "batch": BATCH, "pairs": {}}
    for name in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            found["pairs"][name] = pair(*PAIRS[name], options.rounds, Path(folder))
        print(name)
        for variant, figures in found["pairs"][name].items():
            print(f"  {variant:15} {figures['ms']:9.1f} ms   {figures['ratio']:.3f}")
    options.out.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
