"""The classes that a detector tells apart: counted, exchanged for others, or some left out."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssdlite import SSDLite320_MobileNet_V3_Large_Weights

_COCO = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
COCO_COLUMNS = [i for i, name in enumerate(_COCO) if name != "N/A"]
"""Of torchvision's 91 columns for COCO those that mean something: background and 80 classes."""
COCO_CLASSES = tuple(_COCO[i] for i in COCO_COLUMNS[1:])
"""Names of these classes."""

_BOXES = "roi_heads.box_predictor.bbox_pred"


def layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Path → layer, of all layers with outputs for each class."""
    if isinstance(module, FasterRCNN):
        paths = ["roi_heads.box_predictor.cls_score", _BOXES]
    else:
        head = "head.classification_head"
        scores = dict(module.get_submodule(head).named_modules())
        listed = [f"module_list.{i}" for i in range(len(scores.get("module_list", ())))]
        paths = [f"{head}.{_last(scores, each)}" for each in listed or ["cls_logits"]]
    return {path: module.get_submodule(path) for path in paths}  # type: ignore[misc]


def _last(modules: Mapping[str, nn.Module], path: str) -> str:
    """The last weighted layer inside a module, or the module itself."""
    weighted = (name for name, each in modules.items() if isinstance(each, nn.Linear | nn.Conv2d))
    return [name for name in weighted if f"{name}.".startswith(f"{path}.")][-1]


def columns(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes, with the background, a state dict of such a detector is of.

    None if it has no such layer.
    """
    (path, layer), *_ = layers(module).items()
    found, own = state.get(f"{path}.weight"), count(module)
    return None if found is None else own * len(found) // len(layer.weight)


def count(module: nn.Module) -> int:
    """Classes of a detector, with the background."""
    if isinstance(module, FasterRCNN):
        return len(module.roi_heads.box_predictor.cls_score.weight)
    head = module.get_submodule("head.classification_head")
    return int(getattr(head, _attribute(head)))


def exchange(module: nn.Module, other: nn.Module) -> None:
    """Give a detector the layers for classes of another one of its kind."""
    for path, layer in layers(other).items():
        module.set_submodule(path, layer)
    _recount(module, count(other))


def keep(module: nn.Module, kept: Sequence[int]) -> None:
    """Leave out all classes but some, by their columns."""
    known = count(module)
    for path, layer in layers(module).items():
        rows = torch.arange(len(layer.weight))
        # The boxes of a class follow each other; scores are those of all classes, box by box.
        chosen = rows.view(known, -1)[kept] if path == _BOXES else rows.view(-1, known)[:, kept]
        rows = chosen.flatten()
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(parameter.detach()[rows], parameter.requires_grad))
        setattr(
            layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows)
        )
    _recount(module, len(kept))


def _recount(module: nn.Module, number: int) -> None:
    if not isinstance(module, FasterRCNN):
        head = module.get_submodule("head.classification_head")
        setattr(head, _attribute(head), number)


def _attribute(head: nn.Module) -> str:
    return "num_columns" if hasattr(head, "num_columns") else "num_classes"
