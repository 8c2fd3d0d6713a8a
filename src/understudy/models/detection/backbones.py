"""Backbones of detectors: maps of several strides from classifiers of torchvision and timm."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import timm
import torch
from jaxtyping import Float
from timm.data import resolve_model_data_config
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter

from understudy.config.downloads import from_hub, from_torch
from understudy.errors import NetworkError, suggestion
from understudy.models.adapters.timm import not_in_cache
from understudy.models.weights import load

_DRY_SIZE = 64
"""Side of the image of the dry pass that measures strides."""


@dataclass(frozen=True)
class Backbone:
    """A network that returns maps, the finest first, named `0`, `1` and so on.

    Attributes:
        body: The network.
        widths: Channels of each map.
        stages: Path in `body` of the last module of every stage, the stem included.
        mean: Mean to subtract from each channel of the images.
        std: Standard deviation to divide each channel by.
    """

    body: nn.Module
    widths: list[int]
    stages: list[str]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@final
class NumberedMaps(nn.Module):
    """Wrapper of a network of timm built with `features_only=True`: names the maps of its list.

    Args:
        network: The network as timm builds it.
        count: Number of its maps.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Compute the maps, named `0`, `1` and so on."""
        maps = self.network(images)
        # By their number and not one after another, so that torch.fx can follow.
        return OrderedDict((str(i), maps[i]) for i in range(self.count))


def build_backbone(
    name: str, strides: Sequence[int], *, weights: str = "", trainable: int | None = None
) -> Backbone:
    """Build a backbone that returns maps of some strides.

    Args:
        name: A classifier of torchvision whose children run in sequence, such as `resnet50`,
            `vgg16` or `mobilenet_v2`; or `timm:NAME`.
        strides: Strides of the maps, rising. Each map is the last one of its stride; a VGG is cut
            after each of its max-pools.
        weights: `pretrained`, a name of torchvision's weights such as `IMAGENET1K_V1`, or a file or
            run directory of a classifier. Batch normalisation is then frozen, as in torchvision's
            detectors.
        trainable: Number of last stages to train; default all, or three with `weights`.

    Raises:
        NetworkError: There is no such network, it has no such maps, or the weights do not fit.
    """
    kind, _, rest = name.rpartition(":")
    if kind not in ("", "timm", "torchvision"):
        raise NetworkError(f"There is no backbone {name!r}: name one of torchvision, or timm:NAME.")
    backbone = (_timm if kind == "timm" else _torchvision)(rest, tuple(strides), weights)
    if weights:
        backbone = replace(backbone, body=freeze_batch_norm_2d(backbone.body))
        trainable = 3 if trainable is None else trainable
    freeze(backbone.body, backbone.stages, trainable)
    return backbone


def freeze(body: nn.Module, stages: Sequence[str], trainable: int | None) -> None:
    """Freeze the parameters of all but the last `trainable` stages; None freezes nothing.

    Raises:
        NetworkError: There are fewer stages.
    """
    if trainable is None or trainable == len(stages):
        return
    if not 0 <= trainable < len(stages):
        raise NetworkError(
            f"'trainable_layers' is {trainable}; this backbone has {len(stages)} stages."
        )
    names = [name for name, _ in body.named_modules()]
    last = stages[len(stages) - trainable - 1]
    end = max(i for i, name in enumerate(names) if f"{name}.".startswith(f"{last}."))
    for name in names[: end + 1]:
        for parameter in body.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(False)


# ---- torchvision ---------------------------------------------------------------------------------


def _torchvision(name: str, strides: tuple[int, ...], weights: str) -> Backbone:
    known = models.list_models(module=models)
    if name not in known:
        raise NetworkError(f"torchvision has no backbone {name!r}{suggestion(name, known)}.")
    published = [entry.name for entry in models.get_model_weights(name)]
    online = {"pretrained": "DEFAULT", **{entry: entry for entry in published}}
    if weights and weights not in online and not Path(weights).exists():
        raise NetworkError(
            f"There are no weights at {weights}, and torchvision's for {name} are: "
            f"{', '.join(published) or 'none'}."
        )
    with from_torch(f"torchvision's {name!r}", f"The backbone {name} cannot be built"):
        network = models.get_model(name, weights=online.get(weights))
    if weights and weights not in online:
        load(network, weights, classifier=_classifier(network), reset_classifier=True)
    features = getattr(network, "features", None)
    chain = features if isinstance(features, nn.Sequential) else network
    stages = find_stages(chain)
    _check_strides(name, strides, [stride for _, _, stride in stages])
    widths = {path: width for path, width, stride in stages if stride in strides}
    body = IntermediateLayerGetter(chain, {path: str(i) for i, path in enumerate(widths)})
    return Backbone(body, list(widths.values()), [path for path, *_ in stages])


@torch.no_grad()
def find_stages(chain: nn.Module) -> list[tuple[str, int, int]]:
    """Run children in sequence; return path, channels and stride of the last map of each stride.

    Where several max-pools end the stages, as in a VGG, only their outputs count. Empty if the
    children do not run in sequence.
    """
    x, maps = torch.zeros(1, 3, _DRY_SIZE, _DRY_SIZE), list[tuple[str, int, int]]()
    training = chain.training
    after_pools = sum(isinstance(child, nn.MaxPool2d) for child in chain.children()) > 1
    for path, child in chain.eval().named_children():
        try:
            x = child(x)
        except Exception:  # a child that does not run on the output before it ends the sequence
            break
        if x.ndim != 4 or x.shape[2] != x.shape[3] or x.shape[2] < 2:
            break
        if not after_pools or isinstance(child, nn.MaxPool2d):
            maps.append((path, x.shape[1], _DRY_SIZE // x.shape[2]))
    chain.train(training)
    last = {stride: (path, width, stride) for path, width, stride in maps if stride > 1}
    return list(last.values())


def _classifier(network: nn.Module) -> str:
    """Return the path of the last linear layer."""
    linear: list[str] = [
        path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)
    ]
    return linear[-1]


# ---- timm ----------------------------------------------------------------------------------------


def _timm(name: str, strides: tuple[int, ...], weights: str) -> Backbone:
    if not timm.is_model(name.partition(".")[0]):
        raise NetworkError(f"timm has no model {name!r}{suggestion(name, timm.list_models())}.")
    options: dict[str, Any] = {"pretrained": bool(weights)}
    if weights not in ("", "pretrained"):
        classifier = timm.create_model(name)
        path = classifier.pretrained_cfg["classifier"]
        load(classifier, Path(weights), classifier=path, reset_classifier=True)
        # timm then renames these weights for `features_only`, as it does its own.
        options["pretrained_cfg_overlay"] = {"state_dict": classifier.state_dict()}
    offline = ""
    try:
        reductions = timm.create_model(name, features_only=True).feature_info.reduction()
        _check_strides(f"timm:{name}", strides, reductions)
        last = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]
        with from_hub() if weights == "pretrained" else nullcontext("") as offline:
            network = timm.create_model(name, features_only=True, out_indices=last, **options)
    except (RuntimeError, AttributeError, ValueError, OSError) as error:
        if offline:
            raise NetworkError(not_in_cache(name, offline)) from error
        raise NetworkError(f"The backbone timm:{name} cannot be built: {error}") from error
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        _check_strides(f"timm:{name}", strides, [])  # its outputs are no maps
    data = resolve_model_data_config(network)
    return Backbone(
        NumberedMaps(network, len(strides)),
        network.feature_info.channels(),
        _timm_stages(network),
        tuple(data["mean"]),
        tuple(data["std"]),
    )


def _timm_stages(network: nn.Module) -> list[str]:
    """Return the paths of a timm network's stages; none if its wrapper does not keep the paths."""
    modules = dict(network.named_modules())
    paths = [str(info["module"]) for info in network.feature_info.info]  # type: ignore[union-attr]
    # A network that timm flattens (`FeatureListNet`) has an underscore for each dot.
    paths = [path if path in modules else path.replace(".", "_") for path in paths]
    return [f"network.{path}" for path in paths] if set(paths) <= set(modules) else []


def _check_strides(name: str, strides: Sequence[int], available: Sequence[int]) -> None:
    if not set(strides) <= set(available):
        raise NetworkError(
            f"A detector needs maps of the strides {', '.join(map(str, strides))}, but the "
            f"backbone {name} gives {', '.join(map(str, sorted(set(available)))) or 'none'}; use a "
            "network of convolutions such as resnet50 or timm:convnext_tiny."
        )
