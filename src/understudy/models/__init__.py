"""Networks by name: those of the CIFAR papers, and adapters for everything else.

| name | network |
|---|---|
| `resnet8x4`, `wrn_16_2`, … (`names()`) | the networks of the papers, for small images |
| `timm:NAME` | any model of timm |
| `hf-hub:OWNER/NAME` | a model of timm on the hub of Hugging Face; `@REVISION` may follow |
| `torchvision:NAME` | any classification model of torchvision |
| `hf:FOLDER` | a saved Hugging Face image model |
| `path/to/file.py:factory` | whatever the function `factory` of that file returns |
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from torch import nn

from understudy.config.image_size import Size
from understudy.errors import NameNotFound, NetworkError
from understudy.models import cifar
from understudy.models.network import Network as Network
from understudy.models.pooling import TIMM, Pool
from understudy.models.preprocessing import Input as Input
from understudy.models.weights import count_classes, load, read_for

_ADAPTERS = {"timm": "timm", "torchvision": "torchvision", "hf": "huggingface"}
_HINT = (
    "Others: timm:NAME, hf-hub:OWNER/NAME, torchvision:NAME, hf:FOLDER, path/to/file.py:factory."
)


def names() -> list[str]:
    """Return the names of the networks shipped with Understudy, sorted."""
    return sorted(cifar.models())


def find(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str = "",
    options: Mapping[str, Any] | None = None,
    taps: Mapping[str, str] | None = None,
    classifier: str | None = None,
    size: Size | None = None,
    view_size: Size | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    pool: Pool = "",
    reset_classifier: bool = False,
    classes_from_weights: bool = False,
) -> Network:
    """Build the network of a name and load its weights.

    Args:
        name: See the table of this module.
        num_classes: Number of classes; None keeps the network's own (100 for the networks of the
            papers), 0 builds a `timm:` network without a classifier.
        weights: `pretrained`, or a file or run directory that `models.weights.load` reads.
        options: Further arguments of the network's factory.
        taps: Feature name → module path, added to the taps found automatically.
        classifier: Path of the classifier, as for `Network`; None finds it.
        size: Side in pixels that images are resized to, or height and width, instead of the
            network's own.
        view_size: Size of the data's views. A network without an input size of its own takes this
            one, so that its `shapes` are those of such images.
        mean: Channel means to subtract, instead of the network's own.
        std: Channel standard deviations to divide by, instead of the network's own.
        pool: Pooling of the last map, instead of the network's own: see `models.pooling`.
        reset_classifier: Initialise a new classifier if the weights have other classes: right for a
            student that starts from pretrained weights, never for a teacher.
        classes_from_weights: Keep the number of classes of the weights if it differs.

    Raises:
        NameNotFound: No such network; the message offers the nearest spelling.
        NetworkError: The network cannot be built, loaded or tapped, or its weights have other
            classes.
    """
    of_timm = name.startswith(("timm:", "hf-hub:"))
    if num_classes == 0 and not of_timm:
        raise NetworkError(f"{name} cannot be built without a classifier; only timm: networks can.")
    options = dict(options or {})
    if pool and of_timm:
        options, pool = {"global_pool": TIMM[pool]} | options, ""
    pretrained = weights == "pretrained"
    # Pretrained weights fit the classifier they were trained with, so that is built first.
    own_classifier = (pretrained or name.startswith("hf:")) and num_classes
    module, contract = _build(name, None if own_classifier else num_classes, pretrained, options)
    contract = replace(
        contract,
        size=size or contract.size or view_size,
        mean=mean or contract.mean,
        std=std or contract.std,
    )
    if num_classes == 0 or options.get("num_classes") == 0:
        classifier = ""
    network = Network(
        module, input=contract, taps=taps, classifier=classifier, pool=pool, name=name
    )
    if weights and not pretrained:
        _load_file(network, weights, reset_classifier, classes_from_weights)
    if num_classes is not None and not classes_from_weights:
        _set_classes(network, num_classes, reset_classifier)
    return network


def _load_file(
    network: Network, weights: str, reset_classifier: bool, classes_from_weights: bool
) -> None:
    """Load a file or run directory, after inserting the layers that it was saved with."""
    network.insert_saved_layers(read_for(network.module, weights))
    if classes_from_weights:
        saved = count_classes(network.module, weights, network.classifier)
        if saved not in (None, network.num_classes):
            network.reset_classifier(saved)
    load(network.module, weights, classifier=network.classifier, reset_classifier=reset_classifier)


def _set_classes(network: Network, num_classes: int, reset_classifier: bool) -> None:
    """Reset a classifier of other classes where that is allowed, else refuse it."""
    if num_classes == (network.num_classes or 0):
        return
    if not reset_classifier:
        raise NetworkError(
            f"{network.name} has {network.num_classes or 'no'} classes, {num_classes} were asked "
            "for: a new classifier would be untrained. Use weights trained for these classes, or "
            f"train it on them first: understudy train --student.name {network.name} "
            "--student.weights pretrained …"
        )
    network.reset_classifier(num_classes)


def _build(
    name: str, num_classes: int | None, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Input]:
    """Build the module of a name, and return it with its input contract."""
    kind, _, rest = name.partition(":")
    if kind == "hf-hub":
        kind, rest = "timm", name
    module = _ADAPTERS.get(kind, "")
    # Nothing else executes a file: `config.trust` asks for names of this form alone.
    if ".py:" in name:
        module, rest = "file", name
    if module and rest:
        adapter = import_module(f"{__name__}.adapters.{module}")
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
        plain = factory(num_classes=100 if num_classes is None else num_classes, **options)
    except TypeError as error:
        raise NetworkError(f"{name} does not take the options {dict(options)}: {error}.") from error
    return plain, cifar.INPUT
