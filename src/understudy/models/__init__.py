"""Networks by name: those of the CIFAR papers, and adapters for everything else.

| name | network |
|---|---|
| `resnet8x4`, `wrn_16_2`, … (`names()`) | the networks of the papers, for small images |
| `timm:NAME` | any model of timm |
| `torchvision:NAME` | any classification model of torchvision |
| `hf:FOLDER` | a saved Hugging Face image model |
| `path/to/file.py:factory` | whatever the function `factory` of that file returns |
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from torch import nn

from understudy.errors import NameNotFound, NetworkError
from understudy.models import cifar
from understudy.models.network import Network as Network
from understudy.models.pooling import TIMM, Pool
from understudy.models.preprocessing import Input as Input
from understudy.models.weights import count_classes, load, read

_ADAPTERS = {"timm": "timm", "torchvision": "torchvision", "hf": "huggingface", "file": "file"}
_HINT = "Others: timm:NAME, torchvision:NAME, hf:FOLDER, path/to/file.py:factory."


def names() -> list[str]:
    """Names of the networks shipped with Understudy."""
    return sorted(cifar.models())


def find(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str = "",
    options: Mapping[str, Any] | None = None,
    taps: Mapping[str, str] | None = None,
    size: int | None = None,
    view_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    pool: Pool = "",
    reset_classifier: bool = False,
    classes_from_weights: bool = False,
) -> Network:
    """The network behind a name.

    Args:
        name: See the table of this module.
        num_classes: Classes it must tell apart; None takes it as it is (the networks of the papers
            have 100), 0 builds a `timm:` network without a classifier.
        weights: `pretrained`, or a file or run directory that `models.weights.load` reads.
        options: Further arguments of the network's factory.
        taps: Feature name → module path, beside those found automatically.
        size: Side of the images it wants, instead of its own.
        view_size: Side of the views that it will get; a network without a size of its own takes it,
            and its `shapes` are those of such images.
        mean: Channel means it subtracts, instead of its own.
        std: Channel deviations it divides by, instead of its own.
        pool: How its last map is pooled, instead of as it does: see `models.pooling`.
        reset_classifier: Make the classifier anew if the weights are of other classes: right for a
            student that starts from pretrained weights, never for a teacher.
        classes_from_weights: Take the classes that the weights are of, if these are others.

    Raises:
        NameNotFound: No such network; offers the nearest spelling.
        NetworkError: It cannot be built, loaded or tapped, or its weights are of other classes.
    """
    if num_classes == 0 and not name.startswith("timm:"):
        raise NetworkError(f"{name} cannot be built without a classifier; only timm: networks can.")
    keep = weights == "pretrained" or name.startswith("hf:")
    options = dict(options or {})
    if pool and name.startswith("timm:"):
        options, pool = {"global_pool": TIMM[pool]} | options, ""
    built, contract = _build(
        name, None if keep and num_classes else num_classes, weights == "pretrained", options
    )
    contract = replace(
        contract,
        size=size or contract.size or view_size,
        mean=mean or contract.mean,
        std=std or contract.std,
    )
    network = Network(built, input=contract, taps=taps, pool=pool, name=name)
    if weights and weights != "pretrained":
        network.restore(read(weights))
        theirs = (
            count_classes(network.module, weights, network.classifier)
            if classes_from_weights
            else None
        )
        if theirs not in (None, network.num_classes):
            network.renew_classifier(theirs)
        load(
            network.module,
            weights,
            classifier=network.classifier,
            reset_classifier=reset_classifier,
        )
    if (
        num_classes is not None
        and num_classes != (network.num_classes or 0)
        and not classes_from_weights
    ):
        if not reset_classifier:
            raise NetworkError(
                f"{name} tells {network.num_classes or 'no'} classes apart, {num_classes} were "
                "asked for: a classifier made anew would know nothing. Use weights trained for "
                "these classes."
            )
        network.renew_classifier(num_classes)
    return network


def _build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    kind, _, rest = name.partition(":")
    if ".py:" in name:
        kind, rest = "file", name
    if kind in _ADAPTERS and rest:
        adapter = import_module(f"{__name__}.adapters.{_ADAPTERS[kind]}")
        built: tuple[nn.Module, Input] = adapter.build(rest, num_classes, pretrained, options)
        return built
    if name not in cifar.models():
        raise NameNotFound("network", name, names(), _HINT)
    if pretrained:
        raise NetworkError(
            f"{name} has no pretrained weights of its own; "
            "name a run directory or a file of weights."
        )
    factory = cifar.models()[name]
    try:
        return factory(
            num_classes=100 if num_classes is None else num_classes, **options
        ), cifar.INPUT
    except TypeError as error:
        raise NetworkError(f"{name} does not take the options {dict(options)}: {error}.") from error
