"""Adapter for a network that a function in the user's own file builds."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import NetworkError
from understudy.models.network import Network
from understudy.models.preprocessing import ANY_INPUT, Input
from understudy.python_files import import_function, modules_in


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Call the function `path/to/file.py:factory` with the options; return module and contract.

    The function also receives `num_classes` and `pretrained` if its signature has them. It returns
    a module, or a `Network` with an input contract of its own.

    Raises:
        NetworkError: No such file or function, it fails, or it returns no module.
    """
    path, _, factory_name = name.rpartition(":")
    factory = import_function(Path(path), factory_name, raising=NetworkError)
    parameters = inspect.signature(factory).parameters
    if pretrained and "pretrained" not in parameters:
        raise NetworkError(f"{name} has no parameter `pretrained`; name a file of weights instead.")
    arguments = {"num_classes": num_classes, "pretrained": pretrained}
    arguments = {k: v for k, v in arguments.items() if k in parameters and v is not None}
    try:
        with modules_in("", str(Path(path).parent)):
            module = factory(**{**arguments, **options})
    except Exception as error:
        raise NetworkError(f"{name} fails with {dict(options)}: {error}") from error
    if isinstance(module, Network):
        return module.module, module.input
    if not isinstance(module, nn.Module):
        raise NetworkError(f"{name} returns {type(module).__name__}, not a torch module.")
    return module, ANY_INPUT


def takes_classes(name: str) -> bool:
    """Return True if a function of a Python file has the parameter `num_classes`.

    Raises:
        NetworkError: As for `build`.
    """
    path, _, factory = name.rpartition(":")
    return (
        "num_classes"
        in inspect.signature(import_function(Path(path), factory, raising=NetworkError)).parameters
    )
