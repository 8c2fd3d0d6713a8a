"""Other projects' training against ours, step by step in one process.

Each of them runs its own program, loader and loop. `fp32` does the same arithmetic as they do, in
another memory layout; `best` is the best precision of the machine. Beside a step with a full bank
there are the mean step of a first run, which fills its bank over 240 epochs, and four students with
four methods: behind one bank, or behind one live teacher.

Ours keeps the memory of its tensors between steps. Others do not, and a process has one setting for
both: it is changed before and after every step of theirs.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks import clock, first, ours
from benchmarks.pairs import PAIRS, Pair, write_images
from benchmarks.peers import programs
from benchmarks.steps import METHODS
from understudy.distillation.shared_teacher import Shared
from understudy.training import hardware
from understudy.training.trainer import Trainer


def measure(
    rounds: int, checkouts: Mapping[str, Path], pairs: Iterable[Pair] = PAIRS
) -> dict[str, Any]:
    """Pair → every peer's method → its step over ours, and the smallest of these ratios."""
    found: dict[str, Any] = {}
    for pair in pairs:
        print(f"  {pair}", flush=True)
        found[str(pair)] = _measured(pair, checkouts, rounds)
    return found


def _measured(pair: Pair, checkouts: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        # A round more: a program that ends its epoch begins to evaluate.
        write_images(folder / "images", rounds + clock.WARM_UP + 1)
        peers: dict[str, Iterator[None]] = {
            peer: _as_by_itself(stack.enter_context(closing(program)))
            for peer, program in programs(checkouts, pair, folder)
        }
        mine = {
            f"{what}, {how}": steps
            for how in ours.PRECISIONS
            for what, steps in _ours(folder, pair, how).items()
        }
        seldom = [name for name in mine if not name.startswith("bank")]
        turns = clock.interleaved(mine | peers, rounds, seldom=[*seldom, *peers])
        return _compared(turns, list(peers))


def _as_by_itself(program: Iterator[None]) -> Iterator[None]:
    """Steps of a program with the memory management it has in a process of its own."""
    while True:
        hardware.release_memory()
        try:
            next(program)
        finally:
            hardware.keep_memory()
        yield


def _ours(folder: Path, pair: Pair, how: str) -> dict[str, Iterator[object]]:
    def made(name: str, bank: str, *, fill: bool = True) -> Trainer:
        wanted = ours.recipe(folder, pair, METHODS[name], how=how, bank=bank)
        return ours.trainer(folder, wanted, fill=fill)

    live = [made(name, "") for name in METHODS]
    teacher = live[0].distiller.teacher
    assert teacher is not None
    shared = Shared(teacher)
    for trainer in live:
        trainer.distiller.replay = shared
    return {
        "bank": made("kd", "full").steps(),
        "filling": made("kd", "empty", fill=False).steps(),
        "four behind a bank": _in_turn([made(name, "full") for name in METHODS]),
        "four behind a teacher": _in_turn(live),
    }


def _in_turn(trainers: list[Trainer]) -> Iterator[object]:
    """A step of each for every item."""
    return zip(*(trainer.steps() for trainer in trainers), strict=True)


def _compared(turns: clock.Times, peers: list[str]) -> dict[str, Any]:
    share = first.share(240)
    ratios: dict[str, Any] = {}
    for how in ours.PRECISIONS:
        stored = turns[f"bank, {how}"]
        filling = clock.times(share, turns[f"filling, {how}"])
        costs: dict[str, tuple[float, dict[int, float]]] = {
            "bank": (1, stored),
            "first run": (1, clock.total(filling, clock.times(1 - share, stored))),
            "four students, bank": (4, turns[f"four behind a bank, {how}"]),
            "four students, teacher": (4, turns[f"four behind a teacher, {how}"]),
        }
        ratios[how] = {
            what: {peer: clock.ratio(clock.times(runs, turns[peer]), cost) for peer in peers}
            for what, (runs, cost) in costs.items()
        }
    return {
        "ratios": ratios,
        "fastest": {
            how: {what: _fastest(by_peer) for what, by_peer in figures.items()}
            for how, figures in ratios.items()
        },
        "ms": {name: clock.milliseconds(turn) for name, turn in turns.items()},
    }


def _fastest(ratios: Mapping[str, clock.Figure]) -> dict[str, Any]:
    peer = min(ratios, key=lambda name: ratios[name]["median"])
    return {"peer": peer, **ratios[peer]}
