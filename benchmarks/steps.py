"""Cost of a distillation step relative to the student's own, in fp32 and in the best precision.

`bank` is a step that reads teacher outputs from a bank, over a step of the student alone: 1 is the
lower bound. `online` is a step with a live teacher, over the sum of the teacher's forward pass and
a step of the student alone.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import clock, ours
from benchmarks.pairs import PAIRS, Pair, write_images

METHODS: dict[str, dict[str, Any]] = {
    "kd": {"kd": {}},
    "lshfm": {"lshfm": {}},
    "pefd": {"pefd": {}},
    "nd": {"nd": {}},
}
WIDE = {"lshfm, 2048 hashes": {"lshfm": {"hashes": 2048}}}
"""Added for a feature of 2048 dimensions: the setting of LSHFM's authors on ImageNet."""


def measure(rounds: int, pairs: Iterable[Pair] = PAIRS) -> dict[str, Any]:
    """Return ratios and milliseconds by pair and precision."""
    found: dict[str, Any] = {}
    for pair in pairs:
        print(f"  {pair}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            write_images(Path(name) / "images", rounds + clock.WARM_UP)
            found[str(pair)] = {how: _of(Path(name), pair, how, rounds) for how in ours.PRECISIONS}
    return found


def _of(folder: Path, pair: Pair, how: str, rounds: int) -> dict[str, Any]:
    def trainer(methods: dict[str, Any], bank: str) -> Any:
        return ours.trainer(folder, ours.recipe(folder, pair, methods, how=how, bank=bank))

    methods = METHODS | (WIDE if pair.teacher == "resnet50" else {})
    stored = {name: trainer(given, "bank") for name, given in methods.items()}
    alone, live = trainer({}, ""), trainer({"kd": {}}, "")
    variants = {name: made.steps() for name, made in stored.items()} | {
        "alone": alone.steps(),
        "online": live.steps(),
        "teacher": ours.teacher_forwards(live),
    }
    turns = clock.interleaved(variants, rounds, seldom=("online", "teacher"))
    return {
        "choices": str(alone.settings),
        "bank": {name: clock.ratio(turns[name], turns["alone"]) for name in stored},
        "online": clock.ratio(turns["online"], clock.total(turns["teacher"], turns["alone"])),
        "online over alone": clock.ratio(turns["online"], turns["alone"]),
        "ms": {name: clock.milliseconds(turns[name]) for name in variants},
    }
