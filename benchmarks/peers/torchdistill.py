"""torchdistill (Matsubara 2021, github.com/yoshitomo-matsubara/torchdistill), image classification.

Its `examples/torchvision/image_classification.py` with its own sample configuration for KD on
CIFAR-100. Repairs: none. The networks are Understudy's, since it lacks those of the papers.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pairs import BATCH, CLASSES, Pair
from benchmarks.peers import _repairs
from benchmarks.peers._program import Program
from understudy.models import cifar

METHODS = {"kd": "wide_resnet40_1_from_wide_resnet40_4-final_run.yaml"}


def program(checkout: Path, method: str, pair: Pair, folder: Path) -> Program:
    """Return its command line for a configuration."""
    sample = checkout / "configs/sample/cifar100/kd" / METHODS[method]
    config = folder / "work" / f"{pair.student}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(_configured(sample.read_text(encoding="utf-8"), pair), encoding="utf-8")

    def prepare() -> None:
        register = import_module("torchdistill.models.registry").register_model
        for name in (pair.student, pair.teacher):
            register(key=f"understudy_{name}")(cifar.models()[name])

    return Program(
        checkout / "examples/torchvision/image_classification.py",
        ["--config", str(config), "--device", "cpu"],
        modules=(checkout,),
        folder=folder / "work",
        repairs=(_repairs.cifar100(folder / "images"),),
        before=prepare,
    )


class _Tagged(yaml.SafeLoader):
    """Keeps the tags by which torchdistill's configurations build objects."""


class _Plain(yaml.SafeDumper):
    """Writes them back."""


class _Node:
    def __init__(self, node: yaml.Node) -> None:
        self.node = node


_Tagged.add_multi_constructor("!", lambda _, __, node: _Node(node))
_Plain.add_representer(_Node, lambda _, kept: kept.node)


def _configured(sample: str, pair: Pair) -> str:
    """Return the sample with other networks, the common batch size, and no loader processes."""
    config: dict[str, Any] = yaml.load(sample, _Tagged)
    for role in ("teacher", "student"):
        model = config["models"][f"{role}_model"]
        # Without the prefix, torchvision's network of that name would be built.
        key = f"understudy_{getattr(pair, role)}"
        model |= {"key": key, "kwargs": {"num_classes": CLASSES}, "src_ckpt": None}
    config["models"]["student_model"]["dst_ckpt"] = "student.pt"
    for loader in ("train_data_loader", "val_data_loader"):
        config["train"][loader]["kwargs"] |= {"batch_size": BATCH, "num_workers": 0}
    return yaml.dump(config, Dumper=_Plain)
