"""PEFD (Chen et al. 2022, github.com/chenyd7/PEFD), its `train_student.py` with three projectors.

Repairs: `tensorboard_logger`, which is gone, writes nothing; the data set has the attributes
`train_data` and the like, which torchvision has removed.
"""

from pathlib import Path

from benchmarks.pairs import Pair
from benchmarks.peers import _family
from benchmarks.peers._program import Program

METHODS = {"ours": ("-a 0 -b 25",)}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a method, with the published weights."""
    return _family.train_student(checkout, method, pair, folder, METHODS[method])
