"""Detectors by name: those of torchvision, and families over any backbone.

| name | detector |
|---|---|
| `fasterrcnn`, `retinanet`, `fcos`, `ssdlite`, `ssd` | over any backbone: see `families` |
| `torchvision:NAME` | any detector of torchvision that finds boxes alone |
| `path/to/file.py:factory` | one of these classes, whatever the function `factory` returns |
"""

from collections.abc import Mapping
from typing import Any

from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    RetinaNet,
)
from torchvision.models.detection.ssd import SSD

from understudy.errors import NameNotFound, NetworkError
from understudy.models.adapters import file
from understudy.models.detection import classes, families
from understudy.models.detection._detector import Detector as Detector
from understudy.models.detection._pyramid import NOMINAL_SIZE as NOMINAL_SIZE
from understudy.models.detection.backbones import freeze, stages
from understudy.models.detection.boxhead import BoxHead
from understudy.models.detection.classes import COCO_CLASSES as COCO_CLASSES
from understudy.models.detection.dense import Dense
from understudy.models.detection.ssd import Grid
from understudy.models.weights import load, read

_KINDS: dict[type[nn.Module], type[Detector]] = {
    FasterRCNN: BoxHead,
    RetinaNet: Dense,
    FCOS: Dense,
    SSD: Grid,
}
_OTHERS = ("maskrcnn", "keypointrcnn")
_HINT = "Others: path/to/file.py:factory."
_COLUMNS = 91
"""As torchvision's detectors have for COCO, whose numbers of classes have gaps."""


def names() -> list[str]:
    """Names of all detectors."""
    known = models.list_models(module=models.detection)
    return [
        *families.NAMES,
        *(f"torchvision:{name}" for name in known if not name.startswith(_OTHERS)),
    ]


def find(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str = "",
    options: Mapping[str, Any] | None = None,
    reset_classifier: bool = False,
    classes_from_weights: bool = False,
) -> Detector:
    """The detector of that name.

    Args:
        name: See the table of this package.
        num_classes: Without the background; None takes the detector as it is.
        weights: `pretrained` on COCO (only `torchvision:`), a run directory or a file of weights.
            Of 91 columns for COCO, the 11 that stand for no class are left out.
        options: Those of `families`; of torchvision's, all keywords, and `backbone_weights` and
            `trainable_layers`. A function of the user's gets `num_classes` with the background.
            Of RetinaNet and FCOS also the `mask` of `Dense`.
        reset_classifier: Make the layers for classes anew if the weights are of other classes.
        classes_from_weights: Take the classes that the weights are of, if these are others.

    Raises:
        NameNotFound: No such detector.
        NetworkError: It cannot be built or loaded, or its weights are of other classes.
    """
    given, asked = dict(options or {}), None if num_classes is None else num_classes + 1
    mask = given.pop("mask", None)
    if weights == "pretrained":
        module = _build(name, None, weights, given)
    else:
        module = _build(name, asked or _COLUMNS, weights, given)
        if weights:
            module = _loaded(name, module, weights, given)
    found = classes.count(module)
    if weights and found == _COLUMNS != asked:
        classes.keep(module, classes.COCO_COLUMNS)
        found = classes.count(module)
    if asked not in (None, found) and not classes_from_weights:
        if not reset_classifier:
            raise NetworkError(
                f"{name} has {found - 1} classes, {num_classes} were asked for: a new classifier "
                "would be untrained. Use weights trained for these classes."
            )
        classes.exchange(module, _build(name, asked, "", _bare(given)))
    detector = wrap(module, name=name)
    return detector if mask is None else _masked(detector, mask)


def wrap(module: nn.Module, *, name: str = "") -> Detector:
    """A torchvision detector of any kind, with the places where methods read it.

    Raises:
        NetworkError: It is of no kind that is known.
    """
    if not isinstance(module, MaskRCNN | KeypointRCNN):
        for kind, wrapper in _KINDS.items():
            if isinstance(module, kind):
                return wrapper(module, name=name)
    raise NetworkError(
        f"{type(module).__name__} is no detector that is known here: "
        f"{', '.join(kind.__name__ for kind in _KINDS)}; masks and keypoints are not distilled."
    )


def _masked(detector: Detector, mask: Any) -> Dense:
    if not isinstance(detector, Dense):
        raise NetworkError(
            f"'mask' chooses locations of RetinaNet and FCOS; {detector.name} is read elsewhere: "
            "leave it out."
        )
    return Dense(detector.module, name=detector.name, mask=mask)


def _loaded(name: str, module: nn.Module, weights: str, options: dict[str, Any]) -> nn.Module:
    """A detector of the classes that some weights are of, with these."""
    state = read(weights)
    wrap(module, name=name).insert_saved_layers(state)
    theirs = classes.columns(module, state)
    if theirs not in (None, classes.count(module)):
        module = _build(name, theirs, weights, options)
        wrap(module, name=name).insert_saved_layers(state)
    _freeze_norms(module, state)
    load(module, weights)
    return module


def _freeze_norms(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Freeze the norms that were frozen where the weights come from: they count no batches."""
    for path, norm in list(module.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and f"{path}.num_batches_tracked" not in state:
            module.set_submodule(path, freeze_batch_norm_2d(norm))


def _build(name: str, columns: int | None, weights: str, options: dict[str, Any]) -> nn.Module:
    """A detector; with the weights of COCO if they are `pretrained`, else as yet untrained."""
    # What is about to be loaded needs no weights of the backbone first.
    given = _bare(options) if weights else options
    kind, _, rest = name.partition(":")
    if ".py:" in name:
        own, _ = file.build(name, columns, weights == "pretrained", options)
        wrap(own, name=name)  # which refuses what is no detector
        return own
    if name not in names():
        _refuse(rest)
        raise NameNotFound("detector", name, names(), _HINT)
    if kind == "torchvision":
        return _torchvision(rest, columns, weights == "pretrained", given)
    if weights == "pretrained":
        raise NetworkError(
            f"{name} has no pretrained weights of its own; name a run directory or a file of "
            "weights, or start from a pretrained backbone by options.backbone_weights."
        )
    return families.build(name, columns or _COLUMNS, **given)


def _bare(options: dict[str, Any]) -> dict[str, Any]:
    """The same without the weights of a backbone, of which as many layers are trained."""
    if not options.get("backbone_weights"):
        return options
    return {"trainable_layers": 3, **options, "backbone_weights": ""}


def _refuse(name: str) -> None:
    if name.startswith(_OTHERS):
        raise NetworkError(
            f"torchvision:{name} finds masks or keypoints, of which data here tell nothing: use "
            "torchvision:fasterrcnn_resnet50_fpn, the same detector without them."
        )


def _torchvision(
    name: str, columns: int | None, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    rest = dict(options)
    backbone, trainable = rest.pop("backbone_weights", ""), rest.pop("trainable_layers", None)
    if backbone and not backbone.isidentifier():
        raise NetworkError(
            f"torchvision:{name} starts from a backbone of torchvision's or an untrained one, but "
            f"not from {backbone!r}; a family such as fasterrcnn does."
        )
    online = "DEFAULT" if backbone == "pretrained" else backbone or None
    weights = {
        "weights": "DEFAULT" if pretrained else None,
        "weights_backbone": None if pretrained else online,
    }
    try:
        module: nn.Module = models.get_model(name, **weights, num_classes=columns, **rest)
    except Exception as error:
        raise NetworkError(f"torchvision cannot build {name!r}: {error}") from error
    families.check_options(f"torchvision:{name}", type(module), rest)
    if trainable is not None:
        body = getattr(module.backbone, "body", None)
        if not isinstance(body, nn.Module):
            raise NetworkError(
                f"'trainable_layers' is for detectors over a feature pyramid, not for {name}; name "
                "the parameters to train by training.only."
            )
        freeze(body.requires_grad_(True), [path for path, *_ in stages(body)], trainable)
    return module
