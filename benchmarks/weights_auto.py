"""Compare `weights: auto` with published weights: two data sets, three pairs, three seeds.

    python -m benchmarks.weights_auto --cifar100 DIR --teacher resnet32_cifar100.pth --out DIR

Run from the root of the repository, whose `examples/foreign_network.py` has the networks of
CIFAR-100. `--cifar100` is a folder with `train/` and `test/`, `--teacher` the weights of its
ResNet-32; `--data fashion` measures Fashion-MNIST alone. Every pair is one comparison with
published weights and one with those that are found, on the same images, behind one bank. The same
command continues; after `--minutes` no further comparison is begun. `weights_auto.json` holds all
numbers, those of arms that lose too, and the table is printed, as docs/results.md has it.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import understudy

DATA = ("fashion", "cifar100")
SEEDS = (0, 1, 2)
COLUMNS = ["pair", "method", "control", "published − control", "auto − control",
           "auto − published", "weights found"]  # fmt: skip
ARMS = ("kd", "lshfm", "fitnet", "pefd", "at", "kd+lshfm")
TRAINING = {
    **{"batch": 64, "lr": 0.05, "nesterov": True, "schedule": "cosine", "clip": 5.0},
    **{"precision": "auto", "channels_last": True},
}
FOREIGN = "examples/foreign_network.py"
NORMALISED = {"mean": [0.507, 0.487, 0.441], "std": [0.267, 0.256, 0.276], "size": 32}
FASHION = {"source": "fashion", "size": 16, "augment": "crop_flip", "images": 3000, "seed": 0}


@dataclass(frozen=True)
class Pair:
    """A comparison: its name, and what its recipe has beside the keys that all share."""

    name: str
    keys: Mapping[str, Any]


def pairs(options: argparse.Namespace) -> Iterator[Pair]:
    """Yield the pairs of the data sets that are asked for."""
    if "fashion" in options.data:
        yield from fashion_pairs(options)
    if "cifar100" in options.data:
        yield from cifar100_pairs(options)


def fashion_pairs(options: argparse.Namespace) -> Iterator[Pair]:
    """Yield three pairs of widths, whose teachers are trained first."""
    for teacher, student in ((64, 64), (64, 32), (32, 64)):
        widths, narrow = [16, 16, 32, teacher], [8, 8, 16, student]
        weights = _fashion_teacher(options.out, widths)
        yield Pair(
            f"fashion_{teacher}_{student}",
            {
                "data": FASHION,
                "student": {"name": "resnet8x4", "options": {"widths": narrow}, "size": 16},
                "teacher": {"weights": str(weights)},
                "training": {"epochs": options.epochs, **TRAINING},
            },
        )


def cifar100_pairs(options: argparse.Namespace) -> Iterator[Pair]:
    """Yield three students of a ResNet-32 whose weights others trained."""
    data = {"source": "cifar100", "root": options.cifar100, "augment": "crop_flip"}
    for student in (
        {"name": f"{FOREIGN}:resnet8", **NORMALISED},
        {"name": "resnet8", "options": {"widths": [8, 8, 16, 32]}, "size": 32},
        {"name": "resnet8x4", "options": {"widths": [8, 16, 32, 64]}, "size": 32},
    ):
        name = str(student["name"]).rpartition(":")[2]
        yield Pair(
            f"cifar100_foreign_{name}" if ":" in str(student["name"]) else f"cifar100_{name}",
            {
                "data": {**data, "images": 5000, "seed": 0},
                "student": student,
                "teacher": {
                    "name": f"{FOREIGN}:resnet32",
                    "weights": options.teacher,
                    **NORMALISED,
                },
                "training": {"epochs": options.epochs, **TRAINING},
            },
        )


def _fashion_teacher(out: Path, widths: list[int]) -> Path:
    path = out / f"fashion_teacher_{widths[-1]}"
    keys = {"student.options": {"widths": widths}, "training.epochs": 6}
    resume = (path / "recipe.yaml").is_file()
    return understudy.train("fashion/teacher", keys, out=path, resume=resume).path


def measured(pair: Pair, weights: str, out: Path) -> understudy.Comparison:
    """Run the comparison of a pair with published weights or with found ones; continue it."""
    recipe = _over_papers({"name": pair.name, "weights": weights, **pair.keys})
    return understudy.compare(
        recipe,
        methods=ARMS,
        seeds=SEEDS,
        out=out / pair.name / weights,
        bank=out / pair.name / "bank",
        progress=True,
    )


def _over_papers(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which nothing is left to be chosen but the weights."""
    return {
        **keys,
        "data": {"validation": 0.0, "transforms": [], **keys["data"]},
        "methods": {"fitnet": {}, "at": {}, "lshfm": {"hashes": 1024}},
        "training": {
            **{"optimizer": "sgd", "weight_decay": 5e-4, "decay_norms": True, "warmup_epochs": 0.0},
            "evaluate_every": keys["training"]["epochs"],
            **keys["training"],
        },
    }


def row(pair: str, both: Mapping[str, understudy.Comparison]) -> list[dict[str, Any]]:
    """Return for every arm: points over the control, published and found, and their difference."""
    values = {
        weights: {arm["name"]: arm["metrics"].get("top1") or [] for arm in comparison.arms}
        for weights, comparison in both.items()
    }
    rows = []
    for arm in ARMS:
        control = values["published"]["control"]
        gains = {
            weights: [a - c for a, c in zip(values[weights][arm], control, strict=False)]
            for weights in both
        }
        apart = [a - p for a, p in zip(values["auto"][arm], values["published"][arm], strict=False)]
        weights = {arm["name"]: arm["methods"] for arm in both["auto"].arms}[arm]
        rows.append(
            {
                "pair": pair,
                "arm": arm,
                "control": control,
                **gains,
                "auto - published": apart,
                "weights": {label: keys.get("weight") for label, keys in weights.items()},
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown: means over the seeds in points, with their deviation."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for each in rows:
        found = ", ".join(f"{label} {weight:.3g}" for label, weight in each["weights"].items())
        gains = [_gain(each[key]) for key in ("published", "auto", "auto - published")]
        lines.append([each["pair"], each["arm"], _mean(each["control"]), *gains, found])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gain(values: list[float]) -> str:
    return _mean(values, "+") if values else "diverged"


def _mean(values: list[float], sign: str = "") -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""  # others may have diverged
    return f"{fmean(values):{sign}.2f}{spread}".replace("-", "−")


def main() -> None:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights_auto", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--cifar100", default="")
    parser.add_argument("--teacher", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    if "cifar100" in options.data and not (options.cifar100 and options.teacher):
        parser.error("--cifar100 and --teacher name its images and weights, or say --data fashion.")
    until, rows = time.monotonic() + 60 * options.minutes, list[dict[str, Any]]()
    for pair in pairs(options):
        both = {}
        for weights in ("published", "auto"):
            if time.monotonic() > until:
                print(f"The time is over before {pair.name} {weights}: the same command goes on.")
                break
            both[weights] = measured(pair, weights, options.out)
        else:
            rows += row(pair.name, both)
            content = {"seeds": SEEDS, "epochs": options.epochs, "rows": rows}
            (options.out / "weights_auto.json").write_text(json.dumps(content, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
