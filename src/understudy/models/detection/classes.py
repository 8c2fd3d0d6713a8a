"""Classes of a detector: counts them, replaces their layers, or keeps only some of them.

A class has a *column* in every layer that scores it; the background has one too, the first.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssdlite import SSDLite320_MobileNet_V3_Large_Weights

_COCO = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
COCO_COLUMNS = [i for i, name in enumerate(_COCO) if name != "N/A"]
"""Those of torchvision's 91 columns for COCO that have a meaning: background and 80 classes."""
COCO_CLASSES = tuple(_COCO[i] for i in COCO_COLUMNS[1:])
"""Names of these classes."""

_BOXES = "roi_heads.box_predictor.bbox_pred"


def class_layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return path → layer of all layers with outputs for each class."""
    if isinstance(module, FasterRCNN):
        paths = ["roi_heads.box_predictor.cls_score", _BOXES]
    else:
        head = "head.classification_head"
        inner = dict(module.get_submodule(head).named_modules())
        levels = [f"module_list.{i}" for i in range(len(inner.get("module_list", ())))]
        paths = [f"{head}.{_last_weighted(inner, path)}" for path in levels or ["cls_logits"]]
    return {path: module.get_submodule(path) for path in paths}  # type: ignore[misc]


def _last_weighted(modules: Mapping[str, nn.Module], path: str) -> str:
    """Return the path of the last weighted layer inside a module; it may be the module itself."""
    weighted = (name for name, x in modules.items() if isinstance(x, nn.Linear | nn.Conv2d))
    return [name for name in weighted if f"{name}.".startswith(f"{path}.")][-1]


def count_columns(module: nn.Module) -> int:
    """Return the number of classes of a detector, with the background."""
    if isinstance(module, FasterRCNN):
        return len(module.roi_heads.box_predictor.cls_score.weight)
    head = module.get_submodule("head.classification_head")
    return int(getattr(head, _count_attribute(head)))


def count_saved_columns(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes, with the background, of a state dict of such a detector.

    None if it lacks the detector's first layer of classes.
    """
    (path, layer), *_ = class_layers(module).items()
    saved = state.get(f"{path}.weight")
    # A layer has several rows per class, one for each anchor.
    return None if saved is None else count_columns(module) * len(saved) // len(layer.weight)


def replace_class_layers(module: nn.Module, other: nn.Module) -> None:
    """Replace a detector's layers of classes by those of another detector of its kind."""
    for path, layer in class_layers(other).items():
        module.set_submodule(path, layer)
    _set_count(module, count_columns(other))


def keep_columns(module: nn.Module, kept: Sequence[int]) -> None:
    """Remove all classes of a detector but those of some columns."""
    columns = count_columns(module)
    for path, layer in class_layers(module).items():
        rows = torch.arange(len(layer.weight))
        # Four box offsets of a class are adjacent; scores are those of all classes, box by box.
        rows = rows.view(columns, -1)[kept] if path == _BOXES else rows.view(-1, columns)[:, kept]
        rows = rows.flatten()
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(parameter.detach()[rows], parameter.requires_grad))
        attribute = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
        setattr(layer, attribute, len(rows))
    _set_count(module, len(kept))


def _set_count(module: nn.Module, columns: int) -> None:
    if not isinstance(module, FasterRCNN):
        head = module.get_submodule("head.classification_head")
        setattr(head, _count_attribute(head), columns)


def _count_attribute(head: nn.Module) -> str:
    """Return the attribute in which torchvision's head keeps its number of classes."""
    return "num_columns" if hasattr(head, "num_columns") else "num_classes"
