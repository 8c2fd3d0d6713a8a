"""Networks of the CIFAR distillation papers, one file per family.

A family is a file with a table `MODELS`: name → function of `num_classes` that builds the network.
A file in this folder needs no registration. Its class declares where the features are (`taps`, an
attribute of the instance), which layer is the classifier (`classifier_path`), and how a new layer
is initialised (`initialise`). All of them are networks on which the methods were published (Tian et
al., ICLR 2020, arXiv 1910.10699); they also take images of other sizes.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from understudy.models.preprocessing import Input

INPUT = Input(size=32, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
"""Input contract that all of them were published with."""


@cache
def models() -> dict[str, Callable[..., nn.Module]]:
    """Return name → factory of all networks."""
    factories: dict[str, Callable[..., nn.Module]] = {}
    for file in iter_modules(__path__):
        if not file.name.startswith("_"):
            factories |= import_module(f"{__name__}.{file.name}").MODELS
    return factories
