"""timm (Wightman, github.com/huggingface/pytorch-image-models), its `train.py` with distillation.

Repairs: its loader does without `persistent_workers`, which needs worker processes. The networks
are Understudy's, entered into timm's registry as if pretrained.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.pairs import BATCH, CLASSES, SIDE, Pair
from benchmarks.peers import _repairs
from benchmarks.peers._program import Program
from understudy.models import cifar

_CONFIG = {"mean": cifar.INPUT.mean, "std": cifar.INPUT.std, "input_size": (3, SIDE, SIDE)}
METHODS = {"logit": "--kd-distill-type logit"}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a kind of distillation, with crop and mirror only."""

    def prepare() -> None:
        known = import_module("timm.models._registry")._model_entrypoints
        for name in (pair.student, pair.teacher):
            known[f"understudy_{name}"] = _entry(cifar.models()[name])
        data: Any = import_module("timm.data")
        data.create_loader = partial(data.create_loader, persistent_workers=False)

    arguments = (
        f"--dataset torch/cifar100 --data-dir {folder / 'images'} --num-classes {CLASSES} "
        f"--model understudy_{pair.student} --kd-model-name understudy_{pair.teacher} "
        f"{METHODS[method]} --img-size {SIDE} --batch-size {BATCH} --workers 0 --opt sgd --lr 0.05 "
        f"--train-crop-mode rrc --color-jitter 0 --no-prefetcher --device cpu --output out"
    )
    return Program(
        checkout / "train.py",
        arguments.split(),
        modules=(checkout,),
        folder=folder / "work",
        repairs=(_repairs.cifar100(folder / "images"),),
        before=prepare,
    )


def _entry(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def entry(*, num_classes: int = CLASSES, **_: Any) -> nn.Module:
        network = make(num_classes=num_classes)
        network.num_classes, network.in_chans = num_classes, 3  # type: ignore[assignment]
        network.pretrained_cfg = _CONFIG  # type: ignore[assignment]
        return network

    return entry
