"""Builds detectors by name: those of torchvision, and families over any backbone.

| name | detector |
|---|---|
| `fasterrcnn`, `retinanet`, `fcos`, `ssdlite`, `ssd` | over any backbone: see `families` |
| `torchvision:NAME` | any detector of torchvision that predicts boxes only |
| `path/to/file.py:factory` | the detector that the function returns, of one of these classes |
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

from understudy.config.downloads import from_torch
from understudy.errors import NameNotFound, NetworkError
from understudy.models.adapters import file
from understudy.models.detection import classes, families
from understudy.models.detection._detector import Detector as Detector
from understudy.models.detection._detector import Maps as Maps
from understudy.models.detection._detector import images_of as images_of
from understudy.models.detection._pyramid import NOMINAL_SIZE as NOMINAL_SIZE
from understudy.models.detection.backbones import find_stages, freeze
from understudy.models.detection.classes import COCO_CLASSES as COCO_CLASSES
from understudy.models.detection.dense import DenseDetector
from understudy.models.detection.faster_rcnn import FasterRCNNDetector
from understudy.models.detection.resizing import Resizing as Resizing
from understudy.models.detection.ssd import SSDDetector
from understudy.models.weights import load, read_for

_WRAPPERS: dict[type[nn.Module], type[Detector]] = {
    FasterRCNN: FasterRCNNDetector,
    RetinaNet: DenseDetector,
    FCOS: DenseDetector,
    SSD: SSDDetector,
}
_UNSUPPORTED = ("maskrcnn", "keypointrcnn")
_HINT = "Others: path/to/file.py:factory."
_COCO_COLUMNS = 91
"""Number of classes of torchvision's detectors for COCO, whose class numbers have gaps."""


def names() -> list[str]:
    """Return the names of all detectors."""
    known = models.list_models(module=models.detection)
    return [
        *families.NAMES,
        *(f"torchvision:{name}" for name in known if not name.startswith(_UNSUPPORTED)),
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
    """Build the detector of a name and load its weights.

    Args:
        name: See the table of this package.
        num_classes: Number of classes, without the background; None keeps the detector's own.
        weights: `pretrained` on COCO (only `torchvision:`), a run directory or a file of weights.
            Of 91 columns for COCO, the 11 that stand for no class are removed.
        options: Those of `families`; for torchvision's detectors all keywords, `backbone_weights`
            and `trainable_layers`; for RetinaNet and FCOS also the `mask` of `DenseDetector`. A
            function in the user's file gets `num_classes` with the background.
        reset_classifier: Build new layers of classes if the weights have other classes.
        classes_from_weights: Keep the number of classes of the weights if it differs.

    Raises:
        NameNotFound: No such detector.
        NetworkError: The detector cannot be built or loaded, or its weights have other classes.
    """
    options = dict(options or {})
    mask = options.pop("mask", None)
    # From here on columns, not classes, are counted: the background is one of them.
    asked = None if num_classes is None else num_classes + 1
    if weights == "pretrained":
        module = _build(name, None, weights, options)
    else:
        module = _build(name, asked or _COCO_COLUMNS, weights, options)
        if weights:
            module = _load_file(name, module, weights, options)
    columns = classes.count_columns(module)
    if weights and columns == _COCO_COLUMNS != asked:
        classes.keep_columns(module, classes.COCO_COLUMNS)
        columns = classes.count_columns(module)
    if asked not in (None, columns) and not classes_from_weights:
        if not reset_classifier:
            raise NetworkError(
                f"{name} has {columns - 1} classes, {num_classes} were asked for: a new classifier "
                "would be untrained. Use weights trained for these classes, or train it on them "
                f"first: understudy train --task detection --student.name {name} …"
            )
        untrained = _build(name, asked, "", _without_backbone_weights(options))
        classes.replace_class_layers(module, untrained)
    detector = wrap(module, name=name)
    return detector if mask is None else _with_mask(detector, mask)


def wrap(module: nn.Module, *, name: str = "") -> Detector:
    """Wrap a torchvision detector, so that methods can read its features.

    Raises:
        NetworkError: The module is of no supported class.
    """
    if not isinstance(module, MaskRCNN | KeypointRCNN):
        for kind, wrapper in _WRAPPERS.items():
            if isinstance(module, kind):
                return wrapper(module, name=name)
    raise NetworkError(
        f"{type(module).__name__} is no detector that is known here: "
        f"{', '.join(kind.__name__ for kind in _WRAPPERS)}; masks and keypoints are not distilled."
    )


def _with_mask(detector: Detector, mask: Any) -> DenseDetector:
    if not isinstance(detector, DenseDetector):
        raise NetworkError(
            f"'mask' chooses locations of RetinaNet and FCOS; {detector.name} is read elsewhere: "
            "leave it out."
        )
    return DenseDetector(detector.module, name=detector.name, mask=mask)


def _load_file(name: str, module: nn.Module, weights: str, options: dict[str, Any]) -> nn.Module:
    """Load a file of weights; return the detector, built again if they have other classes."""
    state = read_for(module, weights)
    wrap(module, name=name).insert_saved_layers(state)
    saved = classes.count_saved_columns(module, state)
    if saved not in (None, classes.count_columns(module)):
        module = _build(name, saved, weights, options)
        wrap(module, name=name).insert_saved_layers(state)
    _freeze_norms(module, state)
    load(module, weights)
    return module


def _freeze_norms(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Freeze the norms that were frozen when the weights were saved: they count no batches."""
    for path, norm in list(module.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and f"{path}.num_batches_tracked" not in state:
            module.set_submodule(path, freeze_batch_norm_2d(norm))


def _build(name: str, columns: int | None, weights: str, options: dict[str, Any]) -> nn.Module:
    """Build a detector: with the weights for COCO if they are `pretrained`, else untrained."""
    kind, _, rest = name.partition(":")
    if ".py:" in name:
        module, _ = file.build(name, columns, weights == "pretrained", options)
        wrap(module, name=name)  # refuses what is no detector
        return module
    if name not in names():
        _refuse_unsupported(rest)
        raise NameNotFound("detector", name, names(), _HINT)
    if weights:  # these are loaded afterwards, so that the backbone needs none of its own
        options = _without_backbone_weights(options)
    if kind == "torchvision":
        return _torchvision(rest, columns, weights == "pretrained", options)
    if weights == "pretrained":
        raise NetworkError(
            f"{name} has no pretrained weights of its own; name a run directory or a file of "
            "weights, or start from a pretrained backbone by options.backbone_weights."
        )
    return families.build(name, columns or _COCO_COLUMNS, **options)


def _without_backbone_weights(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without weights of a backbone; as many of its stages stay trainable."""
    if not options.get("backbone_weights"):
        return options
    return {"trainable_layers": 3, **options, "backbone_weights": ""}


def _refuse_unsupported(name: str) -> None:
    if name.startswith(_UNSUPPORTED):
        raise NetworkError(
            f"torchvision:{name} finds masks or keypoints, which data here do not have: use "
            "torchvision:fasterrcnn_resnet50_fpn, the same detector without them."
        )


def _torchvision(
    name: str, columns: int | None, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    keywords = dict(options)
    backbone = keywords.pop("backbone_weights", "")
    trainable = keywords.pop("trainable_layers", None)
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
    of = f"torchvision's {name!r} or its backbone"
    with from_torch(of, f"torchvision cannot build {name!r}"):
        module: nn.Module = models.get_model(name, **weights, num_classes=columns, **keywords)
    families.check_options(f"torchvision:{name}", type(module), keywords)
    if trainable is not None:
        body = getattr(module.backbone, "body", None)
        if not isinstance(body, nn.Module):
            raise NetworkError(
                f"'trainable_layers' is for detectors over a feature pyramid, not for {name}; name "
                "the parameters to train by training.only."
            )
        # torchvision may have frozen some stages itself.
        freeze(body.requires_grad_(True), [path for path, *_ in find_stages(body)], trainable)
    return module
