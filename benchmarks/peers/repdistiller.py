"""RepDistiller (Tian et al. 2020, github.com/HobbitLong/RepDistiller), its `train_student.py`.

Repairs: `tensorboard_logger`, which is gone, writes nothing.
"""

from pathlib import Path

from benchmarks.pairs import Pair
from benchmarks.peers import _family
from benchmarks.peers._program import Program

METHODS = {"kd": ("-r 0.1 -a 0.9 -b 0",), "hint": ("-a 0 -b 100",)}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a method, with the published weights."""
    return _family.train_student(checkout, method, pair, folder, METHODS[method])
