"""Detectors by name: those of torchvision."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet

from understudy.errors import NameNotFound, NetworkError
from understudy.models.detection._detector import Detector as Detector
from understudy.models.detection.boxhead import BoxHead
from understudy.models.detection.dense import Dense
from understudy.models.weights import read


def names() -> list[str]:
    """Names of all detectors."""
    return [f"torchvision:{name}" for name in models.list_models(module=models.detection)]


def find(
    name: str,
    *,
    num_classes: int | None,
    weights: str = "",
    options: Mapping[str, Any] | None = None,
    new_classifier: bool = False,
) -> Detector:
    """The detector of that name.

    Args:
        name: One of `names()`.
        num_classes: Without the background.
        weights: `pretrained`, a run directory or a file of weights.
        options: Further arguments of the detector's factory.
        new_classifier: Make the classifier anew if the weights are of other classes.

    Raises:
        NameNotFound: No such detector.
        NetworkError: It cannot be built or loaded.
    """
    if name not in names():
        raise NameNotFound("detector", name, names())
    module = models.get_model(
        name.removeprefix("torchvision:"),
        weights=None,
        weights_backbone=None,
        num_classes=None if num_classes is None else num_classes + 1,
        **(options or {}),
    )
    if weights:
        module.load_state_dict(read(weights))
    return wrap(module, name=name)


def wrap(module: nn.Module, *, name: str = "") -> Detector:
    """A torchvision detector of any kind, with the places where methods read it.

    Raises:
        NetworkError: It is of no kind that is known.
    """
    if isinstance(module, FasterRCNN):
        return BoxHead(module, name=name)
    if isinstance(module, RetinaNet | FCOS):
        return Dense(module, name=name)
    raise NetworkError(
        f"{type(module).__name__} is no detector that is known here: FasterRCNN, RetinaNet, FCOS."
    )
