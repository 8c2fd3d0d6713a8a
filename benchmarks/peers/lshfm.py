"""LSHFM (Wang et al. 2021, github.com/DoctorKey/LSHFM.singleclassification), `train_student.py`.

Repairs: `.cuda()` does nothing; its `accuracy` views a transposed tensor, which current torch
refuses, and is replaced by one that counts the same.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.pairs import Pair
from benchmarks.peers import _family
from benchmarks.peers._program import Program

METHODS = {"lshl2_s": ("-r 1 -a 0 -b 6",)}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a method, with the published weights."""
    weights = METHODS[method]
    return _family.train_student(checkout, method, pair, folder, weights, before=_repair)


def _repair() -> None:
    loops: Any = import_module("helper.loops")
    loops.accuracy = _accuracy


def _accuracy(output: Tensor, target: Tensor, topk: tuple[int, ...]) -> list[Tensor]:
    """Return the percentage of images whose class is among the k largest logits, for each k."""
    hits = output.topk(max(topk), dim=1).indices == target[:, None]
    return [hits[:, :k].sum(dim=0).sum()[None] * (100.0 / len(target)) for k in topk]
