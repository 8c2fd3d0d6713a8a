"""Time of a comparison whose runs are trained at once, against one after the other.

    python -m benchmarks.jobs [--rounds 3] [--jobs 2] [--folder DIR] [--more KEY VALUE ...]

The students are those of the demonstration. In each round every variant trains all of them, in
processes of its own: one after the other with as many threads as the machine has cores, and at once
with one thread each. Unlike the other benchmarks this one measures the time on the wall, since what
it is about is how cores are used; the load of the machine is printed beside it. The students of
both variants with one thread must be equal to the bit.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.clock import figure
from understudy.training import hardware


def main(arguments: list[str] | None = None) -> None:
    """Measure the variants in turn, and print each time and the ratio."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        teacher = folder / "teacher"
        if not (teacher / "evaluation.json").exists():
            _understudy("train", "fashion/teacher", "--out", teacher, "--threads", 1)
        common = ["fashion/demo", "--teacher.weights", teacher, *options.more]
        in_turn = ["--jobs", 1, "--threads", hardware.cores()]
        at_once = ["--jobs", options.jobs, "--threads", 1]
        ratios = []
        for number in range(options.rounds):
            first = _timed(*common, *in_turn, "--out", folder / f"in_turn{number}")
            second = _timed(*common, *at_once, "--out", folder / f"at_once{number}")
            ratios.append(second / first)
            print(f"ratio {ratios[-1]:.2f}", flush=True)
        print(f"ratio of all rounds: {figure(ratios)}")
        _timed(*common, "--jobs", 1, "--threads", 1, "--out", folder / "one_thread")
        same = _digests(folder / "one_thread") == _digests(folder / "at_once0")
        print(f"students equal to those of one after the other with one thread: {same}")


def _timed(*words: object) -> float:
    started, before = time.monotonic(), os.getloadavg()[0]
    _understudy("compare", *words, "--device", "cpu")
    seconds = time.monotonic() - started
    print(f"{Path(str(words[-1])).name}: {seconds:.1f} s (load {before:.1f})", flush=True)
    return seconds


def _understudy(*words: object) -> None:
    environment = {key: x for key, x in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "understudy", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _digests(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.glob("*/seed*/student.safetensors")
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the runs; default: a temporary folder")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="flags of `compare`")
    return parser


if __name__ == "__main__":
    main()
