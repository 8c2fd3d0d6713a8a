"""Adapter for torchvision's classification models, with the input contract of their weights."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision import models

from understudy.config.downloads import from_torch
from understudy.errors import NetworkError, suggestion
from understudy.models.initialisation import small_linear
from understudy.models.preprocessing import Input

_SMALL_LINEAR = ("mobilenet_v2", "mobilenet_v3", "regnet", "vgg")
"""Families whose linear layers, added ones included, start from N(0, 0.01²) with zero bias."""


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Build a model of torchvision; return it with its input contract.

    Auxiliary classifiers (GoogLeNet, Inception) are removed: no task trains them. These two take
    images normalised by 0.5, as their published weights do inside of the module.

    Raises:
        NetworkError: torchvision has no such model, does not take the options, or cannot get the
            weights.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise NetworkError(
            f"torchvision has no model {name!r}{suggestion(name, known)}. "
            "torchvision.models.list_models() lists what there is."
        )
    classes = {} if num_classes is None else {"num_classes": num_classes}
    weights = models.get_model_weights(name).DEFAULT
    with from_torch(f"torchvision's {name!r}", f"torchvision cannot build {name!r}"):
        module: nn.Module = models.get_model(
            name, weights=weights if pretrained else None, **classes, **options
        )
    if getattr(module, "aux_logits", False):
        module.aux_logits = False  # type: ignore[assignment]
        for path in ("aux1", "aux2", "AuxLogits"):
            setattr(module, path, None)
    if name.startswith(_SMALL_LINEAR):
        # Read by `Network` for layers that it adds: they start as those that torchvision made.
        setattr(module, "initialise", small_linear)  # noqa: B010 - mypy takes it for a submodule
    preset = weights.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if hasattr(module, "transform_input"):
        # GoogLeNet and Inception: with its own weights the module normalises by 0.5 what is
        # normalised already, which a module built for a file of weights would not do.
        module.transform_input = False  # type: ignore[assignment]
        mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return module, Input(
        size=preset.crop_size[0],
        mean=mean,
        std=std,
        interpolation=preset.interpolation.value,
    )


def class_names(name: str) -> tuple[str, ...]:
    """Return the class names of a model's pretrained weights."""
    return tuple(models.get_model_weights(name).DEFAULT.meta.get("categories", ()))
