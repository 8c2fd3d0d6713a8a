"""KD++ (Wang et al. 2023), github.com/WangYZ1608/Knowledge-Distillation-via-ND.

Its `train_cifar_kd.py`. Repairs: `.cuda()` does nothing; the teacher's class means are random
numbers of its dimension. The path given is the checkout, or the folder `CIFAR` in it.
"""

import json
from pathlib import Path

import torch

from benchmarks.pairs import BATCH, CLASSES, Pair
from benchmarks.peers import _repairs
from benchmarks.peers._program import Program

METHODS = {"kd++": "--cls_loss_factor 1 --kd_loss_factor 1 --nd_loss_factor 2"}
_NAMES = {"resnet8x4": "resnet8x4_cifar", "mobilenetv2": "mobilenetv2"}
_TEACHERS = {"resnet32x4": ("resnet32x4_cifar", 256), "resnet50": ("resnet50_cifar", 2048)}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program | None:
    """Return its command line for a method; None if it does not have the pair."""
    if pair.student not in _NAMES or pair.teacher not in _TEACHERS:
        return None
    checkout = checkout / "CIFAR" if (checkout / "CIFAR").is_dir() else checkout
    teacher, dim = _TEACHERS[pair.teacher]
    # The program reads the class means of this teacher, whichever is chosen.
    means = folder / "work/ckpt/teacher/resnet56/center_emb_train.json"
    means.parent.mkdir(parents=True, exist_ok=True)
    means.write_text(json.dumps({str(c): torch.randn(dim).tolist() for c in range(CLASSES)}))
    arguments = (
        f"--model_name {_NAMES[pair.student]} --teacher {teacher} {METHODS[method]} "
        f"--batch_size {BATCH} --workers 0 --gpus 0"
    )
    return Program(
        checkout / "train_cifar_kd.py",
        arguments.split(),
        modules=(checkout,),
        folder=folder / "work",
        repairs=(_repairs.cifar100(folder / "images"), _repairs.no_cuda()),
    )
