"""Networks under a detector: maps of several strides from classifiers of torchvision and timm."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
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

from understudy.errors import NetworkError, suggestion
from understudy.models.weights import load

_DRY_SIZE = 64
"""Side of the image that shows the strides."""


@dataclass(frozen=True)
class Trunk:
    """A network that gives maps, the finest first, by the names `0`, `1` and so on.

    Attributes:
        body: The network.
        widths: Channels of each map.
        stages: Path of the last module of every stage in `body`, the stem's included.
        mean: What it subtracts from each channel.
        std: What it divides each channel by.
    """

    body: nn.Module
    widths: list[int]
    stages: list[str]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@final
class Numbered(nn.Module):
    """A network of timm built with `features_only=True`, whose list of maps gets names.

    Args:
        network: As timm builds it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """The maps by number."""
        return OrderedDict((str(i), each) for i, each in enumerate(self.network(images)))


def trunk(
    name: str, strides: Sequence[int], *, weights: str = "", trainable: int | None = None
) -> Trunk:
    """A backbone by its name, giving maps of some strides.

    Args:
        name: A classifier of torchvision whose parts run one after the other, such as `resnet50`,
            `vgg16` or `mobilenet_v2`; or `timm:NAME`.
        strides: Of the maps, rising. Each is the last map of its stride; a VGG is cut after each of
            its max-pools.
        weights: `pretrained`, torchvision's name of some such as `IMAGENET1K_V1`, or a file or run
            directory of a classifier. Batch normalisation is then frozen, as it is in torchvision's
            detectors.
        trainable: How many of the last stages are trained; default all, or three with `weights`.

    Raises:
        NetworkError: There is no such network, it gives no such maps, or weights do not fit.
    """
    kind, _, rest = name.rpartition(":")
    if kind not in ("", "timm", "torchvision"):
        raise NetworkError(f"There is no backbone {name!r}: name one of torchvision, or timm:NAME.")
    found = (_timm if kind == "timm" else _torchvision)(rest, tuple(strides), weights)
    if weights:
        found = Trunk(
            freeze_batch_norm_2d(found.body), found.widths, found.stages, found.mean, found.std
        )
    freeze(found.body, found.stages, trainable if trainable is not None or not weights else 3)
    return found


def freeze(body: nn.Module, stages: Sequence[str], trainable: int | None) -> None:
    """Freeze the parameters of all but the last `trainable` stages; of none without a number.

    Raises:
        NetworkError: There are not so many stages.
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


def _torchvision(name: str, strides: tuple[int, ...], weights: str) -> Trunk:
    known = models.list_models(module=models)
    if name not in known:
        raise NetworkError(f"torchvision has no backbone {name!r}{suggestion(name, known)}.")
    published = [each.name for each in models.get_model_weights(name)]
    online = {"pretrained": "DEFAULT", **{each: each for each in published}}
    if weights and weights not in online and not Path(weights).exists():
        raise NetworkError(
            f"There are no weights at {weights}, and torchvision's for {name} are: "
            f"{', '.join(published) or 'none'}."
        )
    try:
        network = models.get_model(name, weights=online.get(weights))
    except Exception as error:
        raise NetworkError(_unreachable(name, error, weights)) from error
    if weights and weights not in online:
        load(network, weights, classifier=_classifier(network), reset_classifier=True)
    features = getattr(network, "features", None)
    parts = features if isinstance(features, nn.Sequential) else network
    ends = stages(parts)
    _check(name, strides, [stride for _, _, stride in ends])
    wanted = {path: (width, stride) for path, width, stride in ends if stride in strides}
    body = IntermediateLayerGetter(parts, {path: str(i) for i, path in enumerate(wanted)})
    return Trunk(body, [width for width, _ in wanted.values()], [path for path, *_ in ends])


@torch.no_grad()
def stages(parts: nn.Module) -> list[tuple[str, int, int]]:
    """Path, channels and stride of the last map of every resolution, running part after part.

    Where max-pools end the stages, as in a VGG, of every pool. Empty where parts do not run so.
    """
    x, found = torch.zeros(1, 3, _DRY_SIZE, _DRY_SIZE), list[tuple[str, int, int]]()
    training = parts.training
    pools = sum(isinstance(part, nn.MaxPool2d) for part in parts.children()) > 1
    for path, part in parts.eval().named_children():
        try:
            x = part(x)
        except Exception:  # what does not run after its neighbour is no part of a chain of maps
            break
        if x.ndim != 4 or x.shape[2] != x.shape[3] or x.shape[2] < 2:
            break
        if not pools or isinstance(part, nn.MaxPool2d):
            found.append((path, x.shape[1], _DRY_SIZE // x.shape[2]))
    parts.train(training)
    return list(
        {stride: (path, width, stride) for path, width, stride in found if stride > 1}.values()
    )


def _classifier(network: nn.Module) -> str:
    linear: list[str] = [
        path for path, part in network.named_modules() if isinstance(part, nn.Linear)
    ]
    return linear[-1]


# ---- timm ----------------------------------------------------------------------------------------


def _timm(name: str, strides: tuple[int, ...], weights: str) -> Trunk:
    if not timm.is_model(name.partition(".")[0]):
        raise NetworkError(f"timm has no model {name!r}{suggestion(name, timm.list_models())}.")
    given: dict[str, Any] = {"pretrained": bool(weights)}
    if weights not in ("", "pretrained"):
        whole = timm.create_model(name)
        load(
            whole,
            Path(weights),
            classifier=whole.pretrained_cfg["classifier"],
            reset_classifier=True,
        )
        given["pretrained_cfg_overlay"] = {"state_dict": whole.state_dict()}
    try:
        there = timm.create_model(name, features_only=True).feature_info.reduction()
        _check(f"timm:{name}", strides, there)
        last = [len(there) - 1 - there[::-1].index(stride) for stride in strides]
        network = timm.create_model(name, features_only=True, out_indices=last, **given)
    except (RuntimeError, AttributeError, ValueError, OSError) as error:
        raise NetworkError(_unreachable(f"timm:{name}", error, weights)) from error
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        _check(f"timm:{name}", strides, [])
    data = resolve_model_data_config(network)
    return Trunk(
        Numbered(network),
        network.feature_info.channels(),
        _stages(network),
        tuple(data["mean"]),
        tuple(data["std"]),
    )


def _stages(network: nn.Module) -> list[str]:
    """Where the stages of a network of timm end; none where it is wrapped so that nobody knows."""
    known = dict(network.named_modules())
    paths = [str(each["module"]) for each in network.feature_info.info]  # type: ignore[union-attr]
    found = [path if path in known else path.replace(".", "_") for path in paths]
    return [f"network.{path}" for path in found] if set(found) <= set(known) else []


def _check(name: str, wanted: Sequence[int], there: Sequence[int]) -> None:
    if not set(wanted) <= set(there):
        raise NetworkError(
            f"A detector needs maps of the strides {', '.join(map(str, wanted))}, but the backbone "
            f"{name} gives {', '.join(map(str, sorted(set(there)))) or 'none'}; use a network of "
            "convolutions such as resnet50 or timm:convnext_tiny."
        )


def _unreachable(name: str, error: Exception, weights: str) -> str:
    hint = " Without a connection, name a file of weights instead." if weights else ""
    return f"The backbone {name} cannot be built: {error}{hint}"
