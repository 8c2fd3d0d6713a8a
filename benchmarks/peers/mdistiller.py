"""mdistiller (Zhao et al. 2022, github.com/megvii-research/mdistiller), its `tools/train.py`.

Needs `yacs`. Repairs: `.cuda()` does nothing, `tensorboardX` writes nothing, and the teacher's
checkpoint and the data lie in a temporary folder.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.pairs import CLASSES, Pair, random_weights
from benchmarks.peers import _repairs
from benchmarks.peers._family import spelled
from benchmarks.peers._program import Program

METHODS = {"KD": "kd.yaml", "DKD": "dkd/res32x4_res8x4.yaml"}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a method, with the published configuration."""
    _repairs.needs("yacs")
    student, teacher = spelled(pair)

    def prepare() -> None:
        data: Any = import_module("mdistiller.dataset.cifar100")
        data.get_data_folder = lambda: str(folder)
        known = import_module("mdistiller.models").cifar_model_dict
        make = known[teacher][0]
        path = folder / "teachers" / "mdistiller" / f"{teacher}.pth"
        known[teacher] = make, str(random_weights(make(num_classes=CLASSES), path))

    arguments = (
        f"--cfg {checkout / 'configs/cifar100' / METHODS[method]} DISTILLER.TEACHER {teacher} "
        f"DISTILLER.STUDENT {student} DATASET.NUM_WORKERS 0 LOG.WANDB False"
    )
    return Program(
        checkout / "tools" / "train.py",
        arguments.split(),
        modules=(checkout,),
        folder=folder / "work",
        repairs=_repairs.all_for(folder / "images"),
        before=prepare,
    )
