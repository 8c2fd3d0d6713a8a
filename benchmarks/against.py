"""Training steps of other projects over ours, measured in turn in one process.

Each project runs its own program, loader and loop. `fp32` does the same arithmetic as they do, in
another memory layout; `best` is the best precision of the machine. Measured are a step with a full
bank, the mean step of a first run that fills its bank over 240 epochs, and four students with four
methods that share one bank or one live teacher.

Understudy keeps freed tensor memory between steps, the other projects do not. The setting belongs
to the process, so it is switched before and after each of their steps.
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
    """Return for each pair each peer's step time over ours, and the smallest of these ratios."""
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
            peer: _with_own_memory(stack.enter_context(closing(program)))
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


def _with_own_memory(program: Iterator[None]) -> Iterator[None]:
    """Run the steps of a program with the memory settings of a separate process."""
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
    """Yield after one step of each trainer."""
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
