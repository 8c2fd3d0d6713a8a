"""Adapter for the models of timm, of its registry or on the hub, with their input contract."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import timm
from timm.data import resolve_model_data_config
from torch import nn

from understudy.config.downloads import from_hub
from understudy.config.image_size import of_sides
from understudy.errors import NetworkError, suggestion
from understudy.models.preprocessing import Input

HUB = "hf-hub:"
"""Prefix of a model on the hub."""

HOLDERS = (HUB, "local-dir:")
"""Prefixes of models whose config.json names their architecture."""

_CONFIGS = frozenset(("pretrained_cfg", "pretrained_cfg_overlay"))
"""Options of timm that say where weights are."""


def build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Build a model of timm; return it with its input contract.

    The options take precedence: `num_classes: 0` builds a model without a classifier, whatever
    classes the data have.

    Args:
        name: Model of timm's registry, `hf-hub:OWNER/NAME` on the hub of Hugging Face, with
            `@REVISION` where it should stay as it is, or `local-dir:FOLDER` with its config.json.
        num_classes: Number of classes; None for that of the model.
        pretrained: Load its published weights, or those of the folder.
        options: Further arguments of `timm.create_model`.

    Raises:
        NetworkError: timm has no such model, does not take the options, or cannot get the weights.
    """
    _refuse_files(options)
    if not name.startswith(HOLDERS) and not timm.is_model(name.partition(".")[0]):
        raise NetworkError(
            f"timm has no model {name!r}{suggestion(name, timm.list_models())}. "
            "timm.list_models() lists what there is."
        )
    if pretrained and not name.startswith(HOLDERS) and not _CONFIGS & options.keys():
        _check_weights(name)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    offline = ""
    try:
        with from_hub() if pretrained or name.startswith(HUB) else nullcontext("") as offline:
            keywords = {**classes, **options}
            module: nn.Module = timm.create_model(name, pretrained=pretrained, **keywords)
    except Exception as error:
        if offline and not isinstance(error, TypeError):
            raise NetworkError(not_in_cache(name, offline)) from error
        raise NetworkError(f"timm cannot build {name!r}: {_reason(name, error)}") from error
    data = resolve_model_data_config(module, args=_data_arguments(options))
    return module, Input(
        size=of_sides(*data["input_size"][-2:]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
    )


def _data_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what timm reads of the options for its transform, which takes one `img_size` alone."""
    size = options.get("img_size")
    if size is None or isinstance(size, int):
        return dict(options)
    return {**options, "img_size": None, "input_size": (options.get("in_chans", 3), *size)}


def _refuse_files(options: Mapping[str, Any]) -> None:
    """Refuse options by which timm would read a file of weights, in earlier releases as pickle."""
    configs = [options.get(key) for key in _CONFIGS]
    inside = {key for each in configs if isinstance(each, Mapping) for key in each}
    if refused := sorted({"checkpoint_path"} & options.keys() | {"file", "url"} & inside):
        raise NetworkError(
            f"timm networks take no option {refused[0]}: give the file of weights by the key "
            "weights, which reads it without running code."
        )


def _check_weights(name: str) -> None:
    """Refuse a model of timm's registry that has no weights to download."""
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # of an unknown tag, as in `resnet18.TAG`
        raise NetworkError(f"timm cannot build {name!r}: {_reason(name, error)}.") from error
    if not (config and config.has_weights):
        raise NetworkError(
            f"timm has no pretrained weights of {name!r}: name a file of weights instead, or "
            "another model."
        )


def not_in_cache(name: str, offline: str) -> str:
    """Return what to do without a connection, where the cache does not hold a model's weights.

    Args:
        name: Model of timm's registry, or `hf-hub:OWNER/NAME`.
        offline: Why the hub cannot be reached.
    """
    if name.startswith(HUB):
        owned = name.removeprefix(HUB)
        return (
            f"{name} is not in the cache of the hub, and there is {offline}. Where there is one, "
            f"run `hf download {owned} --local-dir FOLDER`; then name the model "
            "timm:local-dir:FOLDER."
        )
    published = timm.get_pretrained_cfg(name)
    owned = published.hf_hub_id if published else ""
    place = f"https://huggingface.co/{owned}" if owned else published.url if published else ""
    return (
        f"The pretrained weights of timm's {name!r} are not in the cache of the hub, and there is "
        f"{offline}. Where there is one, download them ({place or 'see timm'}, such as "
        "model.safetensors) and give that file as --student.weights FILE or --teacher.weights "
        "FILE. A student without weights begins with random ones, and needs more epochs."
    )


def _reason(name: str, error: Exception) -> str:
    """Return what an error of timm says, and what to do."""
    text = " ".join(str(error).split()).rstrip(".")
    if name.startswith(HUB):
        return (
            f"{text}. Check the name (https://huggingface.co/{name.removeprefix(HUB)}), the "
            "connection and, for a private model, `hf auth login`."
        )
    return text
