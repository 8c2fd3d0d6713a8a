"""Patches that let a peer run on a CPU with current packages and without its data."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torchvision import datasets

from benchmarks.peers._program import PeerError


@contextmanager
def cifar100(place: Path) -> Iterator[None]:
    """Let torchvision read CIFAR-100 from `place` without checks, with its former attributes."""
    load = datasets.CIFAR10.__init__

    def init(self: Any, root: str, *args: Any, **kwargs: Any) -> None:
        load(self, place, *args, **kwargs)
        self.train_data = self.test_data = self.data
        self.train_labels = self.test_labels = self.targets

    with (
        patch.object(datasets.CIFAR10, "__init__", init),
        patch("torchvision.datasets.cifar.check_integrity", return_value=True),
    ):
        yield


@contextmanager
def no_cuda() -> Iterator[None]:
    """Let `.cuda()` do nothing."""

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    with patch.object(torch.Tensor, "cuda", stay), patch.object(torch.nn.Module, "cuda", stay):
        yield


@contextmanager
def log_files() -> Iterator[None]:
    """Replace `tensorboard_logger` and `tensorboardX` by loggers that write nothing."""

    class Silent:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    loggers = {"tensorboard_logger": "Logger", "tensorboardX": "SummaryWriter"}
    modules = {name: ModuleType(name) for name in loggers}
    for name, logger in loggers.items():
        setattr(modules[name], logger, Silent)
    with patch.dict(sys.modules, modules):
        yield


def all_for(images: Path) -> tuple[AbstractContextManager[None], ...]:
    """Return all patches, with the data in `images`."""
    return cifar100(images), log_files(), no_cuda()


def needs(module: str) -> None:
    """Raise `PeerError` if a module that a peer requires is not installed."""
    try:
        __import__(module)
    except ImportError as error:
        raise PeerError(f"this peer needs {module}: pip install {module}") from error
