"""The programs that grew out of RepDistiller's `train_student.py`: one command line for all."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.pairs import BATCH, CLASSES, Pair, random_weights
from benchmarks.peers import _repairs
from benchmarks.peers._program import Program

_NAMES = {"resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}


def spelled(pair: Pair) -> tuple[str, str]:
    """Student and teacher as RepDistiller calls them, and those that took over its networks."""
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
    """`train_student.py` with an untrained teacher's checkpoint and no loader processes."""
    student, teacher = spelled(pair)
    path = folder / "teachers" / f"{teacher}_vanilla" / "untrained.pth"

    def prepare() -> None:
        # Only now the checkout's own `models` can be imported.
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
