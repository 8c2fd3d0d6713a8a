"""Programs derived from RepDistiller's `train_student.py`, which share a command line."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.pairs import BATCH, CLASSES, Pair, random_weights
from benchmarks.peers import _repairs
from benchmarks.peers._program import Program

_NAMES = {"resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}


def spelled(pair: Pair) -> tuple[str, str]:
    """Return student and teacher by their names in RepDistiller and its derivatives."""
    return _NAMES.get(pair.student, pair.student), _NAMES.get(pair.teacher, pair.teacher)


def train_student(
    checkout: Path,
    method: str,
    pair: Pair,
    folder: Path,
    weights: Sequence[str],
    *,
    before: Callable[[], object] = lambda: None,
) -> Program:
    """Return `train_student.py` with an untrained teacher and without loader processes."""
    student, teacher = spelled(pair)
    path = folder / "teachers" / f"{teacher}_vanilla" / "untrained.pth"

    def prepare() -> None:
        # The checkout's own `models` cannot be imported earlier.
        network = import_module("models").model_dict[teacher](num_classes=CLASSES)
        random_weights(network, path)
        before()

    arguments = (
        f"--path_t {path} --model_s {student} --distill {method} {' '.join(weights)} "
        f"--batch_size {BATCH} --num_workers 0"
    )
    return Program(
        checkout / "train_student.py",
        arguments.split(),
        modules=(checkout,),
        folder=folder / "work",
        repairs=_repairs.all_for(folder / "images"),
        before=prepare,
    )
