"""Adapter for the models of timm, with the input contract of their weights."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.data import resolve_model_data_config
from torch import nn

from understudy.errors import NetworkError, suggestion
from understudy.models.preprocessing import Input


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Build a model of timm; return it with its input contract.

    The options take precedence: `num_classes: 0` builds a model without a classifier, whatever
    classes the data have.

    Raises:
        NetworkError: timm has no such model, does not take the options, or cannot get the weights.
    """
    if not timm.is_model(name.partition(".")[0]):
        raise NetworkError(
            f"timm has no model {name!r}{suggestion(name, timm.list_models())}. "
            "timm.list_models() lists what there is."
        )
    classes = {} if num_classes is None else {"num_classes": num_classes}
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **{**classes, **options})
    except Exception as error:
        hint = " Without a connection, name a file of weights instead." if pretrained else ""
        raise NetworkError(f"timm cannot build {name!r}: {error}{hint}") from error
    data = resolve_model_data_config(module, args=dict(options))
    return module, Input(
        size=data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
    )
