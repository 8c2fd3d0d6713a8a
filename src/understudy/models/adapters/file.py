"""Adapter for a network of the user's own: a function in a file."""

import inspect
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from torch import nn

from understudy.errors import NetworkError, suggestion
from understudy.models.network import Network
from understudy.models.preprocessing import ANY_INPUT, Input


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """What the function `path/to/file.py:factory` returns for the options.

    The function receives `num_classes` and `pretrained` too if its signature has them. It may
    return a module, or a `Network` that says what its images must be.

    Raises:
        NetworkError: No such file or function, it fails, or it returns no module.
    """
    path, _, factory_name = name.rpartition(":")
    factory = _function(Path(path), factory_name, name)
    offered = {"num_classes": num_classes, "pretrained": pretrained}
    wanted = inspect.signature(factory).parameters
    if pretrained and "pretrained" not in wanted:
        raise NetworkError(f"{name} has no parameter `pretrained`; name a file of weights instead.")
    arguments = {key: v for key, v in offered.items() if key in wanted and v is not None}
    try:
        module = factory(**{**arguments, **options})
    except Exception as error:
        raise NetworkError(f"{name} fails with {dict(options)}: {error}") from error
    if isinstance(module, Network):
        return module.module, module.input
    if not isinstance(module, nn.Module):
        raise NetworkError(f"{name} returns {type(module).__name__}, not a torch module.")
    return module, ANY_INPUT


def _function(path: Path, factory: str, name: str) -> Any:
    spec = spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise NetworkError(f"There is no Python file {str(path)!r}, asked for by {name!r}.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise NetworkError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, factory, None)):
        raise NetworkError(
            f"{path} has no function {factory!r}{suggestion(factory, vars(module))}."
        )
    return getattr(module, factory)
